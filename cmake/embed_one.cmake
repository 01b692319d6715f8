# Writes the text file IN as the C array embedded_NAME to OUT, as a list of bytes: no limit on length, nothing to escape. VERSION takes the place of
# its mark.
file(READ ${IN} hex HEX)
string(HEX "@PROJECT_VERSION@" mark)
string(HEX "${VERSION}" version)
string(REPLACE "${mark}" "${version}" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
string(SHA256 tag "${hex}")
string(SUBSTRING ${tag} 0 16 tag)
file(WRITE ${OUT} "#include \"embedded.h\"\nconst char embedded_${NAME}[] = {${bytes}'\\0'};\nconst char embedded_${NAME}_tag[17] = \"${tag}\";\n")
