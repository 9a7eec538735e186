printf 'a\n!\n' > .dockerignore
