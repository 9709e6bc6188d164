"""Pairs of the chat subsets: from a useless reply (easy) to one that is merely less careful (hard)."""

from mars_core.data.samples.cards import cards

CHAT = {
    "alpacaeval-easy": cards("""
What are some good ways to stay cool in a heat wave without air conditioning?
+ Close the shutters before the sun reaches the windows, air the rooms at night, drink often and put your feet
in cool water. A damp sheet in front of a fan helps a lot too.
- Heat waves are hot.

Give me three ideas for a rainy Saturday with two children.
+ Build a fort out of blankets, bake pizza with silly toppings, or draw a treasure map and hide something
small.
- Children are often two in number. Saturday follows Friday, and rain is water. I hope that these ideas about
Saturday, rain and children are exactly what you had in mind.

Why do onions make people cry?
+ Cutting an onion frees a gas that turns to a mild acid in the eyes, and tears wash it out. A sharp knife and
a cold onion make less of it.
- Because onions are sad vegetables.

Write a short thank-you note to a neighbour who watered my plants.
+ Dear Marta, the ferns look greener than when I left. Thank you so much for looking after them; please come
over for coffee this week!
- Thank-you notes have a long history. People write them by hand or by machine, and they may be sent to
neighbours, relatives, shops and offices, for which different papers, envelopes and stamps have been in use
through the ages.

Explain what a mortgage is to a teenager.
+ A mortgage is a loan for a house. The bank lends the money, you pay it back bit by bit with interest, and if
you stop paying, the bank may take the house.
- A mortgage is when you have one.

Suggest a vegetarian dinner that takes less than half an hour.
+ Try chickpeas in tomato and coconut milk: fry an onion with curry powder, add both, simmer ten minutes,
serve with rice.
- Roast a chicken for two hours and serve it with gravy.

How should I store fresh herbs so that they last longer?
+ Stand soft herbs such as parsley in a glass of water in the fridge; wrap woody ones in a damp cloth.
- Herbs, herbs, herbs. There are so many of them, green ones mostly, and they all smell of something, which is
why people like to have herbs, and once they have herbs they would like to go on having herbs.

What is the difference between a frog and a toad?
+ Frogs mostly have smooth, moist skin and long legs for jumping; toads are drier and wartier, and tend to
walk.
- One is a frog and the other one is not.

Recommend a first instrument for a six-year-old.
+ A ukulele is a good start: it is small, cheap, kind to the fingers, and three chords carry dozens of songs.
- No idea, ask a shop.

Plan a simple morning stretch routine for me.
+ Roll the shoulders ten times, reach overhead for three breaths, fold forward with soft knees, then twist
gently to each side. Five minutes will do.
- Mornings come after nights. Stretching is a thing that one can do in the morning, and I am told that many
people who do it in the morning do it in the morning every day.
"""),
    "alpacaeval-length": cards("""
What should I see in Vienna in one day?
+ Begin at St Stephen's Cathedral, walk through the Hofburg to the art museum, and end with cake in an old
coffee house.
- Vienna has the Eiffel Tower, the Colosseum and many canals, so hire a gondola early and climb the tower at
sunset.

How does a bill become widely known in a small town?
+ Put it on the notice board, tell the local paper, and explain it at the market where people have time to
ask.
- A bill is the hard part of a bird's mouth. Ducks have a flat one, and it is handy for finding food in mud.

Give me tips for the first night in a tent.
+ Pitch it on level ground before dark, close the mesh early, wear a hat to sleep and keep a torch at hand.
- Pitch it in a dry stream bed after dark, leave food inside, wear wet clothes to sleep and bury the torch.

How can I write better mails at work?
+ Put the request in the first line, keep one topic to a mail, and say by when you need an answer.
- Put the request in the last line, mix as many topics as you can, and never say when you need an answer.

What is a fair way to choose the next book in a reading group?
+ Let everyone propose one title, vote by points for the first three choices, and keep the runner-up for the
month after.
- Let the loudest member decide each time, do not ask the others, and change the title the evening before you
meet.

Why is the sea salty?
+ Rivers wash salts out of rock and carry them to the sea; water evaporates, the salt stays and has built up
for ages.
- Fish sweat salt as they swim, and since there are so many fish the water has become salty over the last few
years.

How do I introduce a shy cat to a new home?
+ Give it one quiet room with food, litter and a hiding place, and let it come to you when it feels ready.
- Carry it through every room at once, invite all your friends to stroke it, and take its hiding places away.

Explain inflation with an example.
+ If bread costs two euros this year and two euros ten next year, prices rose by five percent: money buys a
little less.
- If bread costs two euros this year and one euro ninety next year, prices rose by five percent: that is
called inflation.

What makes a museum label good?
+ It is short, answers the question visitors have in front of the object, and points at something they can
see.
- It is long, uses as many technical terms as it can, and talks about objects that are kept in another
building.

How can a couple share the housework?
+ List every task, let each take those they mind least, split the rest evenly, and look at the list again in a
month.
- List nothing, wait until one of you gets angry, then promise to do better and carry on just as you did
before.
"""),
    "alpacaeval-hard": cards("""
Should I rent or buy a flat if I stay for three years?
+ Three years is usually short for buying: fees and taxes often eat what you save in rent. Compare both for
your case, including what you could lose if prices fall.
- Buying is always better, because rent is money thrown out of the window. Three years are plenty to make a
profit.

How much water should I drink each day?
+ There is no single number; thirst and pale urine are decent guides. Heat, sport, illness and nursing raise
the need.
- Exactly three litres, spread evenly, for each adult.

Is it better to learn Spanish or French first?
+ It depends on where you will use it. For travel in Latin America take Spanish; with family in Quebec or West
Africa, French. Both open the door to the other.
- Spanish, since it is the easier one and everybody likes it. Nobody really needs French these days.

What is a good answer to "What is your greatest weakness?" in an interview?
+ Name a real one that does not break the job, and show what you do about it: "I used to say yes too fast, so
now I check my calendar first."
- Say that you are a perfectionist. It sounds modest and strong at once, and recruiters are always impressed
by it.

Can I paint over wallpaper?
+ You can if it sticks firmly and has no vinyl coating: fix loose seams, prime it, then paint. If it is
peeling, stripping it first saves trouble.
- Yes, just paint over it.

How do I tell my boss that I am overloaded?
+ Bring a list of your tasks with hours, say which two matter most in your eyes, and ask what may wait. That
gives your boss a decision instead of a complaint.
- Tell your boss clearly that you have too much to do and that you feel stressed by it. Good bosses will
understand and take something away, since they care about the people who work for them.

What can I do if my child does not want to read?
+ Read aloud together, let the child choose even comics, and keep it to ten pleasant minutes; pressure tends
to backfire.
- Make reading a rule: thirty minutes each evening before any play, with a small test at the end so that you
know that it was really read. Children need discipline and will thank you later.

How do noise-cancelling headphones work?
+ Microphones pick up the sound around you and the headphones play its mirror image, so that the two nearly
cancel out. It works best on steady, low sounds.
- They are made of thick material that keeps the noise outside of your ears.

Is it safe to eat leftovers that stood out overnight?
+ Better not if they hold rice, meat, fish or dairy: some bacteria leave toxins that reheating doesn't remove.
- As long as you heat them well you can eat them, since heat kills all the bacteria that may have grown there
during the night, whatever kind of food it is.

Write a two-line birthday verse for a friend who loves trains.
+ May every signal turn to green for you,¶and cake arrive on platform number two.
- Happy birthday to you, my friend who likes trains,¶I hope that your birthday is good.
"""),
    "mt-bench-easy": cards("""
Imagine that you are a lighthouse keeper. Describe your evening in three sentences.
+ At dusk I climb the ninety-two steps and light the lamp. The fog horn answers the gulls while I oil the
clockwork. Then I write the names of passing ships in the log and drink my tea cold.
- I am a language model and have no evenings.

Extract the names of all cities from this text: "We flew from Rome to Cairo and took a train to Luxor."
+ Rome, Cairo, Luxor
- The text is about a journey. Travelling by plane and by train is popular with many people, and there are a
lot of cities worth a visit. Which of them would you like to see one day?

Classify the mood of this review as positive or negative: "The soup was cold and the waiter laughed at us."
+ Negative. Both the food and the service are criticised.
- Soup.

Compose a polite mail that asks a colleague to reschedule a meeting.
+ Hi Priya, something urgent came up on Thursday. Could we move our meeting to Friday at ten, or any time that
suits you? Thanks a lot!
- Meetings can be rescheduled by mail.

Give me the past tense of these verbs: go, swim, bring.
+ went, swam, brought
- The past tense is a form of the verb that shows that something happened before now, and English has regular
as well as irregular verbs, which you can learn from a list.

Which planet is closest to the sun?
+ Mercury is the planet closest to the sun.
- Pluto, I guess, or perhaps it was one of the others; they all go around it somehow.

Write a slogan for a bakery that opens at five in the morning.
+ Up before the sun, warm before you are.
- We are a bakery. We open at five in the morning. We sell bread. Please come to us at five in the morning, or
later.

Summarise in one sentence: "The bridge was closed in May. Repairs took two months. It opened again in July."
+ The bridge was closed from May to July for two months of repairs.
- The bridge is red and very old, and there is a nice café next to it where you can sit in the sun.

Play a travel guide and greet a group in Kyoto.
+ Welcome to Kyoto, everyone! Comfortable shoes on? Today we begin at the fox shrine and finish with tea by
the river.
- No.

Turn this into a question: "The library opens at nine."
+ Does the library open at nine?
- The library opens at nine, and it is a very good library with many thousands of books on several floors.
"""),
    "mt-bench-med": cards("""
Describe a thunderstorm from the point of view of a dog.
+ The sky growls and nobody growls back. I am brave under the table, pressed against her shoes, until the air
stops smelling of metal.
- A thunderstorm is a storm with thunder. Dogs are often afraid of thunderstorms, since they hear well, and
many owners try to calm them down.

Rewrite in plain English: "The aforementioned premises shall be vacated forthwith."
+ You must leave this place at once.
- The premises which were mentioned before are to be vacated without any delay by those who are on the
premises.

Is it ethical to read a friend's diary in order to help her? Argue both sides in short.
+ For: it might reveal a danger in time. Against: it breaks trust and takes away her right to decide what to
share. Unless her life is at risk, asking is the better way.
- It is ethical because you want to help.

What are the three states of matter, and how does water pass between them?
+ Solid, liquid and gas. Ice melts to water, water evaporates to vapour; vapour condenses and water freezes on
the way back.
- Solid, liquid and gas. Water is a liquid, and if you heat it, it becomes ice, which turns to vapour when it
is cooled.

Suggest a title and a first sentence for a story about a lost umbrella.
+ "Left on the Nine-Fifteen": It had been opened in four countries and never once by its owner.
- "The Umbrella": This is a story about an umbrella which was lost, and about what happened to the umbrella
after it was lost by the person who had the umbrella.

Name two causes and two effects of deforestation.
+ Causes: farming and logging. Effects: loss of species and less stored carbon, hence a warmer climate.
- Deforestation is caused by trees.

Put these events in order: the moon landing, the fall of the Berlin Wall, the first flight of the Wright
brothers.
+ The Wright brothers' flight (1903), the moon landing (1969), the fall of the Berlin Wall (1989).
- The moon landing (1903), the fall of the Berlin Wall (1969), the first flight of the Wright brothers (1989),
and all three of them changed the world for ever.

Explain how a vaccine works using a metaphor.
+ It is a wanted poster: your immune system learns the face of the intruder and recognises him at the door.
- It works like a medicine that you take when you are ill, in order to get well.

Write a product description for a chair made of driftwood.
+ Shaped by tide, finished by hand. No two are alike, and each still smells faintly of salt when the sun falls
on it.
- This chair is made of driftwood. It is a chair, you can sit on it, and it has legs as well as a place to
sit. It is for sale now.

Convert this to a table with a header, separated by bars: Ana is 31 and lives in Lima, Ben is 27 and lives in
Bern.
+ name | age | city¶Ana | 31 | Lima¶Ben | 27 | Bern
- Ana, 31, Lima; Ben, 27, Bern
"""),
    "mt-bench-hard": cards("""
A farmer must cross a river with a wolf, a goat and a cabbage, one at a time. Which goes first, and why?
+ The goat. It is the only one that may not stay with either of the others: the wolf would eat it and it would
eat the cabbage.
- The wolf, since it is the most dangerous of the three and should be taken away from the goat before anything
happens.

If it takes five machines five minutes to make five toys, how long do a hundred machines need for a hundred
toys?
+ Five minutes. Each machine needs five minutes for one toy.
- A hundred minutes. Five machines make five toys in five minutes, and so a hundred make a hundred in a
hundred.

A bat and a ball cost 1.10 together, and the bat costs 1.00 more than the ball. What does the ball cost?
+ 0.05: then the bat costs 1.05, and together they make 1.10.
- 0.10, because 1.10 minus 1.00 leaves 0.10.

Why does a mirror swap left and right but not up and down?
+ It swaps neither: it swaps front and back. We imagine ourselves turned around to face us, and call the
result a swap of left and right.
- It is because our eyes lie next to each other and not one above the other, and so the mirror swaps only in
that direction.

Does a heavier stone fall faster than a light one in a vacuum? Explain.
+ No. Gravity pulls more strongly on the heavier stone, but it also takes more force to speed it up; both
effects cancel.
- Yes, slightly, since gravity pulls more strongly on it.

Write a function name and a one-line docstring for code that removes duplicates but keeps the order.
+ unique_in_order: "Return the items without later duplicates, in order of first appearance."
- process_list: "This function processes the list that is given to it and returns the result of processing
it."

I flip a fair coin and get heads four times. What is the chance of heads on the fifth flip?
+ One half. The coin has no memory.
- It is lower than one half, because tails is due after four heads in a row and things even out in the long
run.

Compare bubble sort with merge sort for a list of a million items.
+ Merge sort needs about twenty million comparisons, bubble sort up to half a trillion; merge sort pays with
extra memory.
- Both sort the list. Bubble sort is simpler, hence faster, while merge sort is only of interest for very
short lists.

Which is the odd one out, and why: 9, 16, 25, 43?
+ 43, since the others are squares.
- 16, since it is the only even number. 43 could also be it, but it fits well into the pattern of growing gaps
between the numbers.

Someone says "This sentence is false." Is the sentence true or false?
+ Neither works: if it is true it must be false, and if it is false it must be true. It is a paradox of
self-reference.
- It is false, because it says so.
"""),
}
