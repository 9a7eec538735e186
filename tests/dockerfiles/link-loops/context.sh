ln -s loop loop
ln -s two one
ln -s one two
mkdir folder
ln -s two folder/one
ln -s one folder/two
ln -s ../folder folder/self
