(printf 'FROM base:1\nENV A='; head -c 10000000 /dev/zero | tr '\0' a; echo) >Dockerfile
