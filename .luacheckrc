std = "luajit"
max_line_length = 120
unused_args = false
files["tests"] = {std = "luajit+busted"}
exclude_files = {"build", "tests/golden"}
