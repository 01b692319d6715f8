/* A disk that fails when a test says so: the name of the SQLite VFS that the driver opens its files with. NULL, the default one, in
 * a build without DOORBUSTER_FAILPOINTS. */
#ifndef STORE_FAULTY_VFS_H
#define STORE_FAULTY_VFS_H

#ifdef DOORBUSTER_FAILPOINTS
const char *faulty_vfs_name(void); /* registers it at the first call; any thread */
#else
#define faulty_vfs_name() NULL
#endif

#endif
