"""Run it in the terminal (Terminal, New Terminal): python first.py"""

numbers = [3, 1, 4, 1, 5, 9, 2, 6]
print(sum(numbers) / len(numbers))
