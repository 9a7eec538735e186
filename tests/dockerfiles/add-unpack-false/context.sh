echo 1 >a
tar --owner=5 -cf x.tar a
