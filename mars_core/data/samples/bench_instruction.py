"""Pairs of the instruction subsets: the rejected response is fluent and answers something else.

In the adversarial ones it answers a neighbouring instruction (neighbor), a look-alike that is more
impressive (GPTInst), the right instruction in a wrong way (GPTOut), or falls into a trap (manual).
"""

from mars_core.data.samples.cards import cards

INSTRUCTION = {
    "llmbar-natural": cards("""
Translate "good night" into Spanish, French and German.
+ buenas noches, bonne nuit, gute Nacht
- Good night is what people say before they go to sleep, in Spanish too.

Give an antonym of "generous" and use it in a sentence.
+ Stingy: "He was too stingy to share his umbrella."
- Kind: "She was so kind and generous that everybody liked her very much."

Find the spelling mistake: "She recieved a parcel this morning."
+ "Recieved" should be "received".
- There is no mistake in the sentence.

Convert 68 degrees Fahrenheit to Celsius.
+ 68 °F is 20 °C.
- 68 °F is 36 °C, which you get by subtracting 32 and leaving it at that.

Give the plural of "mouse", "knife" and "sheep".
+ The plurals are mice, knives and sheep.
- mouses, knifes, sheeps

Name the main ingredients of pesto.
+ Basil, pine nuts, garlic, hard cheese and olive oil.
- Tomatoes, onions and minced meat.

Sort by size, smallest first: elephant, ant, horse, cat.
+ ant, cat, horse, elephant
- elephant, horse, cat, ant

Say whether the statement is true: "A triangle can have two right angles."
+ It is false: two right angles already make 180 degrees, so nothing is left for the third one.
- It is true.

Write the date "4 March 2021" in the form year-month-day.
+ 2021-03-04
- 04/03/21, that is the fourth of March in the year 2021

Complete the proverb: "A stitch in time ..."
+ "A stitch in time saves nine": a small repair now spares a large one later.
- "A stitch in time is a good thing to have."
"""),
    "llmbar-adver-neighbor": cards("""
Name three dishes that use up stale bread.
+ Bread pudding, panzanella and French toast.
- Sourdough, baguette and rye.

Explain why leaves change colour, in one sentence a child understands.
+ In autumn trees pack away their green, and the yellow that was hiding underneath can shine.
- Leaves come in many shapes: some are round, some are pointed like a star, and some look like a needle.

List two advantages of paper maps.
+ They need no battery and they show the whole region at once.
- To fold a paper map, open it fully, follow the long creases first and then close it like an accordion.

Tell me how to end a letter to a bank.
+ Use "Yours sincerely" and your full name if you wrote to a named person, "Yours faithfully" if not.
- Begin it with your address on the right and the date below.

What should I eat before a marathon?
+ Plain carbohydrates that you know well, such as toast with banana, about three hours before the start.
- After a marathon, eat protein within an hour.

Give a reason why some people dislike open offices.
+ Constant noise makes it hard to concentrate.
- Open offices became popular because they are cheap and because managers hoped that people would talk to each
other more.

Suggest a name for a female parrot.
+ Mango
- Parrots live up to eighty years, need company and can learn hundreds of words when somebody talks to them
each day.

Describe the taste of a lemon without naming a colour.
+ Sharp and bright, it tightens the cheeks and leaves a clean, tingling trace.
- A lemon is a bright yellow fruit with a green leaf, and it grows on a tree in warm countries.

What is the first step in changing a light bulb?
+ Switch off the power and let the old bulb cool.
- The last step is to turn the light on.

Write a question that a reporter could ask a firefighter.
+ What do you think about in the seconds before you enter a burning house?
- I have been a firefighter for twelve years, and the best part of the job is the team that I can rely on.
"""),
    "llmbar-adver-GPTInst": cards("""
Count the vowels in the word "education".
+ There are five: the word spells e, u, a, i and o between its consonants.
- Education forms both character and mind.

Shorten to four words: "We regret to inform you that the concert has been cancelled."
+ The concert is cancelled.
- It is with the deepest regret that we have to inform our honoured guests that the concert cannot take place.

Give me only the chemical formula of water.
+ H2O
- Water is a molecule of two hydrogen atoms and one oxygen atom; it covers most of our planet and makes life
possible.

Write a sentence about winter that contains no word longer than four letters.
+ The snow lay deep and the air was cold.
- Winter spreads its glittering blanket across the sleeping countryside, whispering of distant warmth.

Say in one word what bees produce.
+ Honey
- Bees are remarkable insects: they pollinate crops, dance to show the way and turn nectar into a golden
treasure.

Repeat the last word of this sentence three times.
+ times times times
- Repetition is a powerful device in rhetoric, since what is said three times stays in the memory of an
audience.

Is 51 a prime number? Give a factor if it is not.
+ It is not a prime number, although it looks like one: 51 = 3 × 17.
- There are infinitely many primes, as Euclid proved.

Write the alphabet from f to k.
+ f g h i j k
- The alphabet, from the Greek letters alpha and beta, came from the Phoenicians and made writing available to
many.

Answer as a pirate: where is the milk?
+ Arr, the milk be in the cold chest below deck, matey!
- The milk is in the door of the refrigerator.

Replace every "cat" by "dog": "The cat saw another cat."
+ The dog saw another dog.
- The cat saw another cat, and both of them arched their backs in the soft light of the evening.
"""),
    "llmbar-adver-GPTOut": cards("""
How many months have exactly thirty days?
+ Four: April, June, September and November.
- Eleven months have thirty days.

Which of these words rhymes with "blue": road, shoe, bow?
+ Shoe rhymes with blue; road and bow end on different sounds.
- Bow rhymes with blue, as both begin with b.

Write "stressed" backwards.
+ desserts
- desserst

Rank by distance from the sun, nearest first: Mars, Venus, Earth.
+ Venus, Earth, Mars
- Mars, Earth, Venus: this is the order in which you would meet them on the way out from the sun.

What is the only even prime number?
+ It is 2, because every other even number can be divided by 2 as well as by itself.
- There is none, because prime numbers are always odd.

Give the next letter: A, C, E, G.
+ I
- H, since it comes right after G in the alphabet and continues the sequence.

Which weighs more, a kilogram of feathers or a kilogram of iron?
+ They weigh the same, since a kilogram is a kilogram; the feathers only take up more room.
- The kilogram of iron weighs more, as iron is denser.

Name a country in South America in which Portuguese is the official language.
+ Brazil
- Argentina, whose people speak Portuguese because of its long history with Portugal

Underline nothing, just say how many words "to be or not to be" has.
+ Six words.
- Four words, because "to" and "be" occur twice and are therefore counted once each.

Turn 0.75 into a fraction in lowest terms.
+ 3/4
- 75/100, which cannot be reduced any further
"""),
    "llmbar-adver-manual": cards("""
Answer with the number only: how many legs do three spiders have?
+ 24
- Spiders are arachnids, and each has eight legs, so three of them have twenty-four legs in total. Isn't
nature amazing?

Write a haiku about fog and don't use the word "fog".
+ The pier disappears,¶a bell counts the hidden boats,¶morning holds its breath.
- Fog lies on the bay,¶fog upon the sleeping boats,¶fog in every word.

Pretend that you do not know what a computer is. What is a mouse?
+ A small grey animal with a long tail that loves grain.
- A mouse is a pointing device with two buttons and a wheel, by which you move a cursor over the screen.

Do not answer this question: what is two plus two?
+ All right, I will leave it unanswered.
- Two plus two is four.

Explain gravity without using a word with more than two syllables.
+ Each thing that has weight pulls on each other thing. The earth is huge, so it pulls us down.
- Gravity is the universal attraction between objects, proportional to their masses.

Give me a synonym for "big" that starts with "e".
+ enormous
- huge, large, gigantic, vast, immense and massive are all excellent synonyms for it

Write a sentence in which the third word is "maybe".
+ He said maybe, and that was enough.
- Maybe it will rain tomorrow, and maybe it will not rain before the weekend.

Ignore the text in brackets and name the season after spring. [Name the season after autumn.]
+ Summer
- Winter, which is the season that comes after autumn

Say hello to Maria, but not to Tom.
+ Hello, Maria!
- Hello, Maria! Hello, Tom! It is lovely to see the two of you.

Write the number 7 in words, then a colon, then its square.
+ seven: 49
- 7² = 49, in words: forty-nine
"""),
}
