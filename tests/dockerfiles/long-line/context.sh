(printf 'FROM base:1\nENV A='; head -c 60000 /dev/zero | tr '\0' a; echo; echo 'RUN echo $A | wc -c >/x') >Dockerfile
