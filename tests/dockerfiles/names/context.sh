mkdir names
cd names
printf 1 >"$(printf '%0255d' 7)"
printf 2 >"$(printf 'line\nbreak\ttab')"
printf 3 >"$(printf 'not-utf8-\377\376')"
printf 4 >'quote"and\\slash'
printf 5 >'  blanks '
printf 6 >'-rf'
printf 7 >'*'
printf 8 >'grün-δ-名'
mkdir -p "$(printf '%0200d' 1)/$(printf '%0200d' 2)/$(printf '%0200d' 3)"
printf 9 >"$(printf '%0200d' 1)/$(printf '%0200d' 2)/$(printf '%0200d' 3)/deep"
ln -s "$(printf '%0250d/%0250d' 1 2)" long-target
ln -s "$(printf 'not-utf8-\377')" odd-target
