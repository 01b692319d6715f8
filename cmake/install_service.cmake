# Runs at install time: what a service needs besides the programs, with the paths of the prefix that is installed to now, which is not always the one that was
# configured. PACKAGING: our folder of that name; CHANGELOG: the file; WORK: a folder of the build for what is made on the way.
# Honours DESTDIR, as file(INSTALL) does.
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(SYSCONF_DIR /etc)
else()
  set(SYSCONF_DIR ${CMAKE_INSTALL_PREFIX}/etc)
endif()
set(BIN_DIR ${CMAKE_INSTALL_PREFIX}/bin)

function(put from directory name)
  configure_file(${from} ${WORK}/${name} COPYONLY)
  file(INSTALL ${WORK}/${name} DESTINATION ${directory}
    PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
endfunction()

# As Debian wants it: compressed, with no time and no name in it.
function(put_compressed from directory name)
  configure_file(${from} ${WORK}/${name} COPYONLY)
  execute_process(COMMAND gzip -9nf ${WORK}/${name} COMMAND_ERROR_IS_FATAL ANY)
  file(INSTALL ${WORK}/${name}.gz DESTINATION ${directory}
    PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
endfunction()

configure_file(${PACKAGING}/doorbuster.service.in ${WORK}/doorbuster.service.made @ONLY)
put(${WORK}/doorbuster.service.made ${CMAKE_INSTALL_PREFIX}/lib/systemd/system doorbuster.service)
put(${PACKAGING}/doorbuster.sysusers ${CMAKE_INSTALL_PREFIX}/lib/sysusers.d doorbuster.conf)
# Not for everybody: there may be Redis's password in it, or the key that signs tokens. systemd reads it as root.
configure_file(${PACKAGING}/doorbuster.default ${WORK}/doorbuster COPYONLY)
file(INSTALL ${WORK}/doorbuster DESTINATION ${SYSCONF_DIR}/default PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ)
put(${PACKAGING}/debian/copyright ${CMAKE_INSTALL_PREFIX}/share/doc/doorbuster copyright)
put_compressed(${CHANGELOG} ${CMAKE_INSTALL_PREFIX}/share/doc/doorbuster CHANGELOG.md)
foreach(command server setup verify)
  put_compressed(${PACKAGING}/man/doorbuster-${command}.8 ${CMAKE_INSTALL_PREFIX}/share/man/man8 doorbuster-${command}.8)
endforeach()
