mkdir -p p/b/n q/b q1/b; touch p/b/1 p/b/n/k q/b/2 q1/b/1 q/c qfile e
