printf 'FROM base:1\nENV A=\377b\n' >Dockerfile
