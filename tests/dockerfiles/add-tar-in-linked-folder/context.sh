mkdir -p t/relative t/absolute u
echo 1 >t/relative/a
echo 2 >t/absolute/b
echo 3 >u/c
tar --owner=5 --group=6 -C t -cf x.tar relative/a absolute/b
tar -C u --owner=0 --group=0 -cf y.tar c
rm -r t u
