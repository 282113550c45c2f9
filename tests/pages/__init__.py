"""A look at the built site in headless Chromium: screenshots, and what is wrong with a page.

``python -m pages FOLDER`` in `tests`, where FOLDER holds the pages that Sphinx wrote. It visits
every page in a wide and in a narrow window, those at the top of the site in light and in dark, and
says what it found: links that lead nowhere, headings and tables that are cut off, pages wider than
the window, pictures without a text, headings that leave out a rank, errors in the console.
``--axe FILE`` adds what axe-core finds, an npm package. ``--screenshots FOLDER`` writes pictures.
"""
