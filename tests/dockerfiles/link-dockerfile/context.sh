mkdir -p docker/inner
mv Dockerfile docker/inner/service.Dockerfile
ln -s inner/../inner/service.Dockerfile docker/current
ln -s docker/current Dockerfile
ln -s docker/ignore .dockerignore
echo 'names/no*' > docker/ignore
mkdir names
echo yes > names/yes
echo no > names/no
