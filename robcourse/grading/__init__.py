"""A folder of submissions in, one safe row for each out.

The way of a submission: `intake` finds it (`files` in folders and zips, `names` whose it is);
`sandbox` runs `runner` on it, which calls the student's functions and judges nothing; `marking`
judges what came back, in a process that never held the student's code, and `flags` what to look
at; `batch` does that for all, on one machine or many; `gradebook` takes what a person grades by
hand (`written` finds it); `exports` and `pages` write what comes out. `run` does all of it.
"""
