--- The folder that holds the tree, as the beginning of a path: "" if it is the working directory, else ends in "/".
return debug.getinfo(1, "S").source:match "^@(.*)tests/support/[^/]*$"
