mkdir t
echo 1 >t/a
ln t/a t/hard
ln -s a t/link
mkdir t/d
echo 2 >t/d/b
for format in v7 ustar gnu pax; do
  if [ $format = gnu ] || [ $format = pax ]; then
    long=$(printf '%0200d' 7)
    mkdir -p "t/$long"
    echo 3 >"t/$long/$long"
    ln -sf "$long/$long" t/long
  fi
  tar --format=$format --owner=5 --group=6 -C t -cf $format.tar .
done
rm -r t
