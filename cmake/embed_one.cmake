# Writes the text file IN as the C array embedded_NAME to OUT, as a list of bytes: no limit on length, nothing to escape.
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
file(SHA256 ${IN} tag)
string(SUBSTRING ${tag} 0 16 tag)
file(WRITE ${OUT} "#include \"embedded.h\"\nconst char embedded_${NAME}[] = {${bytes}'\\0'};\nconst char embedded_${NAME}_tag[17] = \"${tag}\";\n")
