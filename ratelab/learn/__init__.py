"""Lessons: algorithms explained with worked examples, drills that grade a user's code, and interview questions."""
