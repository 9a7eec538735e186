mkdir -p t/d/e
echo 1 >t/a
echo 2 >t/d/b
echo 3 >t/d/e/c
ln -s ../a t/d/link
ln -s /a t/d/absolute
ln t/a t/hard
mkfifo t/d/pipe
chmod 4755 t/a
chmod 2750 t/d
chmod 1777 t/d/e
tar --owner=5 --group=6 -C t -cf x.tar .
head -c 3000 x.tar >head
tail -c +3001 x.tar >tail
(gzip -c head; gzip -c tail) >x.tar.gz
(bzip2 -c head; bzip2 -c tail) >x.tar.bz2
(xz -c head; xz -c tail) >x.tar.xz
rm -r t head tail x.tar
