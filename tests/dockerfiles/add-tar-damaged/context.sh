head -c 200000 /dev/urandom >a
tar -czf x.tar.gz a
head -c 100000 x.tar.gz >y
mv y x.tar.gz
