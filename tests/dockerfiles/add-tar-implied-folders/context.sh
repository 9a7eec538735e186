mkdir -p t/a/b/c
echo 1 >t/a/b/c/d
tar --owner=5 --group=6 -C t -cf x.tar a/b/c/d
rm -r t
