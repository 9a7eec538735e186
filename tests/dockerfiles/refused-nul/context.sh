printf 'FROM base:1\nENV A=\000b\n' >Dockerfile
