# Empties FOLDER: the exchanges of an earlier run are not this one's.
file(REMOVE_RECURSE ${FOLDER})
file(MAKE_DIRECTORY ${FOLDER})
