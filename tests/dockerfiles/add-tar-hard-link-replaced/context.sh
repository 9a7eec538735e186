mkdir tree && echo one >tree/m && ln tree/m tree/n && ln tree/m tree/o && tar -C tree --sort=name -cf a.tar m n o && rm -r tree
mkdir b && echo two >b/m
