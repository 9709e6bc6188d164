"""Worked solutions for math-prm: the equations of the chosen one hold, the rejected one has a wrong step."""

from mars_core.data.samples.cards import cards

MATHS = cards("""
A tank holds 240 litres. It is filled at 15 litres a minute and leaks 3 litres a minute. How long does it take
to fill?
+ Each minute 15 - 3 = 12 litres are gained. The tank is full after 240 / 12 = 20 minutes.
- Each minute 15 + 3 = 18 litres are gained. That takes 240 / 18 = 12 minutes, more or less.

Solve 5x - 7 = 3x + 9.
+ Subtract 3x and add 7 on both sides: 2x = 16. Check 16 / 2 = 8: both 5 * 8 - 7 = 33 and 3 * 8 + 9 = 33 hold,
so x is 8.
- Subtract 3x on both sides: 2x - 7 = 9. Subtract 7 on both sides: 9 - 7 = 2, hence 2x = 2 and x = 2 / 2 = 2.

How many diagonals does a polygon with 9 sides have?
+ Each of 9 corners joins 9 - 3 = 6 others by a diagonal, and each is counted twice: 9 * 6 / 2 = 27.
- Each of 9 corners joins 9 - 3 = 6 others by a diagonal, so the number of diagonals is 9 * 6 = 45.

A shirt costs 80 dollars after a discount of 20 percent. What did it cost before?
+ 80 dollars are 80 percent of the old price, so one percent is 80 / 80 = 1 dollar, and 1 * 100 = 100 dollars.
- 20 percent of 80 is 16 dollars, so add it back: 80 + 16 = 96 dollars. It cost as much before, that is 96.

What is the sum of the whole numbers from 1 to 40?
+ Pair the first with the last: 1 + 40 = 41. There are 40 / 2 = 20 such pairs, and 20 * 41 = 820.
- Pair the first with the last: 1 + 40 = 41. There are 40 such pairs, and so the sum is 40 * 41 = 1620.

Two dice are rolled. What is the probability that the sum is 4?
+ The pairs are (1,3), (2,2) and (3,1), so 3 of 36 outcomes: 36 / 3 = 12, which is a chance of 1 in 12.
- The sums run from 2 to 12, which makes 12 - 2 = 11 possible values, and one of them is 4. The chance is 1 in
11.

A rectangle has a perimeter of 34 and a length of 11. What is its area?
+ Half the perimeter is 34 / 2 = 17, so the width is 17 - 11 = 6 and the area is 11 * 6 = 66.
- The width is what remains of the perimeter: 34 - 11 = 22, and the area is 11 * 22 = 242, measured in square
units.

What is the remainder when 7 * 8 * 9 is divided by 10?
+ 7 * 8 = 56 and 56 * 9 = 504, which ends in 4, so the remainder is 4.
- 7 * 8 = 54 and 54 * 9 = 486, which ends in 6, so that the remainder of the product is 6.

The ages of three sisters add up to 42, and each is 3 years older than the next. How old is the youngest?
+ The middle one is 42 / 3 = 14, which agrees with 11 + 14 + 17 = 42, so the youngest is 14 - 3 = 11.
- Take away the differences: 42 - 3 - 3 = 34, and divide by three sisters. 34 / 3 = 11 with a rest of 1, so
about 12 years.

A car uses 6 litres of fuel for 100 km. How much does it need for 350 km?
+ 350 / 100 = 3.5, so it needs 6 * 3.5 = 21 litres.
- For 300 km it needs 6 * 3 = 18 litres, and half as much again for the rest: 18 / 2 = 9. Together it needs 27
litres.
""")
