mkdir -p a b
touch a/1 b/2 c d e
printf '../a\nb/../../c\n/../d\nb/../e\n' > .dockerignore
