mkdir -p t/d t/l t/kept
echo 1 >t/a
echo 2 >t/f
echo 3 >t/l/x
chmod 755 t/d
tar --owner=5 --group=6 -C t -cf x.tar ./a ./d ./f ./l ./kept
rm -r t
