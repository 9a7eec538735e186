ln -s two one
ln -s one two
