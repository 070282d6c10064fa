# Prints "name page" for every further name in the NAME section of the mdoc
# pages given: what man(1) is to find under a name that is no file.
FNR == 1	{ page = FILENAME; sub(/.*\//, "", page); in_name = 0 }
/^\.Sh /	{ in_name = $2 == "NAME" }
in_name && /^\.Nm /	{
	suffix = page
	sub(/.*\./, ".", suffix)
	if ($2 suffix != page)
		print $2 suffix, page
}
