echo text >text
gzip -c text >text.gz
xz -c text >text.xz
cp text text.tar
tar -cf empty.tar -T /dev/null
tar --owner=5 -cf x.tar text
head -c 300 x.tar >short
head -c 4096 /dev/zero >zeros
