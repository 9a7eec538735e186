mkdir deep
ln -s ../../Dockerfile deep/link
ln -sf deep/link Dockerfile
