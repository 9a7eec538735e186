mkdir -p data/inner
printf '*.csv text working-tree-encoding=UTF-16LE\n*.cmd text eol=crlf\n*.id ident\n' > .gitattributes
printf 'keep.cmd -text\nunix.cmd text eol=lf\n' > data/inner/.gitattributes
printf 'code,name\nA01,x\n' | iconv -t UTF-16LE > data/codes.csv
printf 'echo one\r\necho two\r\n' | tee data/run.cmd data/inner/keep.cmd > data/inner/unix.cmd
printf '$%s$\n' Id > data/a.id
