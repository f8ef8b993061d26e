"Builds the book as a web site, for `.ci/make_site.py`."
