mkdir -p src vendor
echo 'print(1)' > src/x.py
git update-index --add --cacheinfo 160000,4d7a214614ab2935c943f9e0ff69d22eadbb8f32,vendor
