# doorbuster_embed(TARGET FILE...): makes each text file a C string, with @PROJECT_VERSION@ replaced in it. src/gate/lua/sell.lua becomes `extern const
# char embedded_sell_lua[]`, declared in "embedded.h" of the target's build folder, beside embedded_sell_lua_tag[], 16 characters that change with the text.
function(doorbuster_embed target)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/embedded/${target})
  set(header "/* Made by cmake/embed.cmake. */\n")
  set(outputs)
  foreach(file ${ARGN})
    get_filename_component(name ${file} NAME)
    string(MAKE_C_IDENTIFIER ${name} identifier)
    set(output ${folder}/${identifier}.c)
    add_custom_command(OUTPUT ${output}
      COMMAND ${CMAKE_COMMAND} -DIN=${PROJECT_SOURCE_DIR}/${file} -DOUT=${output} -DNAME=${identifier}
              -DVERSION=${PROJECT_VERSION} -P ${PROJECT_SOURCE_DIR}/cmake/embed_one.cmake
      DEPENDS ${PROJECT_SOURCE_DIR}/${file} ${PROJECT_SOURCE_DIR}/cmake/embed_one.cmake)
    list(APPEND outputs ${output})
    string(APPEND header "extern const char embedded_${identifier}[], embedded_${identifier}_tag[17];\n")
  endforeach()
  file(GENERATE OUTPUT ${folder}/embedded.h CONTENT "${header}")
  target_sources(${target} PRIVATE ${outputs})
  target_include_directories(${target} PRIVATE ${folder})
endfunction()
