mkdir t added
echo 1 >t/a
echo 2 >added.txt
echo 3 >added/b
tar --owner=5 --group=6 -C t -cf x.tar a
echo 4 >t/a
tar --owner=5 --group=6 -C t -czf y.tar.gz a
rm -r t
