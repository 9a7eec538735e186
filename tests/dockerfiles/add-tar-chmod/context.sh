mkdir -p t/d/e
echo 1 >t/a
echo 2 >t/d/b
echo 3 >t/d/e/c
ln -s ../a t/d/link
ln -s /a t/d/absolute
ln t/a t/hard
mkfifo t/d/pipe
rm t/hard
chmod 4755 t/a
chmod 2750 t/d
chmod 1777 t/d/e
tar --owner=5 --group=6 -C t -cf x.tar .
tar --owner=5 --group=6 -C t -cf y.tar d/e/c
rm -r t
