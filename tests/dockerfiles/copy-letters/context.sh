echo 1 > aéc
echo 2 > abc
echo 3 > a字c
echo 4 > aéééééc
echo 5 > "$(printf 'd\377d')"
echo 6 > aßßc
printf 'a??c\n' > .dockerignore
