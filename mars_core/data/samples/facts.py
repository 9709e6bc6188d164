"""Facts and advice that the chat pairs ask for."""

from typing import NamedTuple

from mars_core.data.samples.cards import table


class Family(NamedTuple):
    """Facts of one kind: `rows` hold subject, answer and a wrong answer that a careless reader may give."""

    questions: tuple[str, ...]
    statements: tuple[str, ...]
    rows: list[tuple[str, ...]]


# country | capital | a better known or larger city | currency
COUNTRIES = table("""
Norway | Oslo | Bergen | krone
Japan | Tokyo | Osaka | yen
Peru | Lima | Cusco | sol
Kenya | Nairobi | Mombasa | shilling
Hungary | Budapest | Debrecen | forint
Thailand | Bangkok | Chiang Mai | baht
Poland | Warsaw | Kraków | zloty
Iceland | Reykjavik | Akureyri | króna
Canada | Ottawa | Toronto | dollar
Turkey | Ankara | Istanbul | lira
Portugal | Lisbon | Porto | euro
Vietnam | Hanoi | Da Nang | dong
Mongolia | Ulaanbaatar | Erdenet | tugrik
Morocco | Rabat | Casablanca | dirham
Chile | Santiago | Valparaíso | peso
Ghana | Accra | Kumasi | cedi
South Korea | Seoul | Busan | won
Ukraine | Kyiv | Lviv | hryvnia
Georgia | Tbilisi | Batumi | lari
Brazil | Brasília | Rio de Janeiro | real
Egypt | Cairo | Alexandria | pound
Switzerland | Bern | Zurich | franc
India | New Delhi | Mumbai | rupee
Denmark | Copenhagen | Aarhus | krone
""")

CAPITALS = Family(
    questions=(
        "What is the capital of {subject}?",
        "Which city is the capital of {subject}?",
        "My quiz asks for the capital of {subject}. What should I write?",
        "I keep forgetting the capital of {subject}. Can you remind me?",
    ),
    statements=(
        "The capital of {subject} is {answer}.",
        "{answer} is the capital of {subject}.",
        "That would be {answer}, where the government of {subject} has its seat.",
        "You are looking for {answer}; that is where most of the ministries of {subject} are.",
    ),
    rows=[(country, capital, other) for country, capital, other, _ in COUNTRIES],
)

CURRENCIES = Family(
    questions=(
        "What money do people use in {subject}?",
        "Which currency will I need for a trip to {subject}?",
        "We are flying to {subject} next month. What is the currency there?",
        "What is the currency of {subject} called?",
    ),
    statements=(
        "People in {subject} pay with the {answer}.",
        "The currency of {subject} is the {answer}.",
        "You will need the {answer}, and small notes are handy for buses and markets.",
        "It is called the {answer}. A bank card works in most towns of {subject} too.",
    ),
    rows=[
        (country, currency, COUNTRIES[index - 5][3])
        for index, (country, _, _, currency) in enumerate(COUNTRIES)
    ],
)

SYMBOLS = Family(
    questions=(
        "What is the chemical symbol for {subject}?",
        "Which letters stand for {subject} in the periodic table?",
        "How is {subject} written in chemical formulas?",
    ),
    statements=(
        "The chemical symbol for {subject} is {answer}.",
        "In the periodic table {subject} is written {answer}.",
        "Chemists write {answer} when they mean {subject}, wherever it turns up in a formula.",
    ),
    rows=table("""
gold | Au | Go
silver | Ag | Si
iron | Fe | Ir
sodium | Na | So
potassium | K | Po
copper | Cu | Co
tin | Sn | Ti
lead | Pb | Le
mercury | Hg | Me
tungsten | W | Tu
antimony | Sb | An
helium | He | Hl
"""),
)

YOUNG = Family(
    questions=(
        "What is a young {subject} called?",
        "My daughter wants to know the word for a baby {subject}. What is it?",
        "Is there a special name for the young of a {subject}?",
    ),
    statements=(
        "A young {subject} is called a {answer}.",
        "The word for a baby {subject} is {answer}.",
        "People call it a {answer}, at least until the little {subject} has grown up.",
    ),
    rows=table("""
cow | calf | foal
horse | foal | kid
sheep | lamb | calf
goat | kid | lamb
swan | cygnet | gosling
kangaroo | joey | cub
deer | fawn | foal
bear | cub | pup
frog | tadpole | hatchling
goose | gosling | cygnet
hare | leveret | kitten
seal | pup | calf
"""),
)

AUTHORS = Family(
    questions=(
        "Who wrote {subject}?",
        "Which author do we have to thank for {subject}?",
        "Our book club is reading {subject}. Who is it by?",
    ),
    statements=(
        "{subject} was written by {answer}.",
        "The author of {subject} is {answer}.",
        "It is by {answer}, and many readers still count {subject} among the best books there are.",
    ),
    rows=table("""
Pride and Prejudice | Jane Austen | Charlotte Brontë
Moby-Dick | Herman Melville | Joseph Conrad
Don Quixote | Miguel de Cervantes | Lope de Vega
Frankenstein | Mary Shelley | Bram Stoker
War and Peace | Leo Tolstoy | Ivan Turgenev
Hamlet | William Shakespeare | Christopher Marlowe
Faust | Johann Wolfgang von Goethe | Friedrich Schiller
the Odyssey | Homer | Virgil
Ulysses | James Joyce | Samuel Beckett
The Metamorphosis | Franz Kafka | Thomas Mann
Middlemarch | George Eliot | Thomas Hardy
Walden | Henry David Thoreau | Ralph Waldo Emerson
"""),
)

FAMILIES = (CAPITALS, CURRENCIES, SYMBOLS, YOUNG, AUTHORS)

# goal | three tips, each an imperative
ADVICE = table("""
keep a basil plant alive | put the pot on a sunny sill | water it when the soil feels dry
    | pinch off the tips before it flowers
fall asleep more easily | put the phone away an hour before bed | keep the room cool and dark
    | get up at the same time every day
learn to juggle | start with one ball thrown from hand to hand
    | practise over a bed so that dropping is harmless | add the third ball only when two feel easy
remember people's names | say the name aloud once when you hear it | link it to something about the face
    | write it down after the meeting
start running | alternate a minute of jogging with two of walking | go three times a week
    | stay slow enough to talk
clean a burnt pan | simmer water with baking soda in it | let it cool and soak overnight
    | scrape with a wooden spoon rather than steel
save money on groceries | plan the week's meals before shopping | compare the price by weight
    | cook twice the amount and freeze half
write a good cover letter | open with why this job interests you | give one result you are proud of
    | keep it under a page
fix a squeaky door | lift out one hinge pin at a time | rub it with petroleum jelly
    | swing the door a few times to spread it
learn Italian vocabulary | review ten words every morning | put new words into sentences of your own
    | listen to songs and follow the lyrics
get rid of fruit flies | cover ripe fruit or put it in the fridge
    | set out a glass of vinegar with a drop of soap | rinse bottles before recycling them
make a small room look larger | paint the walls in a light colour | hang a mirror opposite the window
    | choose furniture that stands on legs
train a puppy to sit | hold a treat above its nose until it sits | reward it at once
    | stop after five minutes while it is still fun
prepare for a job interview | read what the company says about itself
    | rehearse three stories of things you did | prepare two questions to ask
break the habit of biting nails | keep them trimmed short | notice when you do it
    | give the hands a smooth stone to hold instead
bake bread with a crisp crust | heat the oven well before baking | put a tray of water on the bottom rack
    | let the loaf cool on a grid
sharpen a kitchen knife | soak the whetstone first | keep the same shallow angle
    | finish with light strokes on the fine side
grow tomatoes on a balcony | choose a deep pot in full sun | water at the root in the morning
    | tie the stem to a stick as it climbs
pack light for a week away | lay everything out and remove a third | choose colours that go together
    | wear the heaviest shoes on the journey
get better at chess | solve a few tactics puzzles each day | look over the games you lost
    | learn the simple endings first
keep a bicycle chain in good shape | wipe it with a rag after wet rides | oil every link sparingly
    | measure its wear twice a year
give a calm presentation | rehearse the first two minutes aloud | breathe out slowly before you begin
    | look at one friendly face at a time
find time to read | carry a book wherever you go | read ten pages before turning on the television
    | drop books that bore you
remove candle wax from a tablecloth | let it harden and lift off the crumbs | lay brown paper over the spot
    | run a warm iron across the paper
drink less coffee | replace the afternoon cup with tea | cut down by half a cup every few days
    | drink a glass of water first
make friends in a new city | join a club that meets every week | say yes to invitations for a while
    | invite a colleague to lunch
take sharper photos of birds | use a short exposure | focus on the eye
    | rest the camera on a wall or a bag of rice
cook rice that is not sticky | rinse it until the water runs clear | keep the lid closed while it cooks
    | let it stand for five minutes off the heat
revise for a history exam | turn each chapter into five questions | explain the causes aloud without notes
    | come back to it after two days
calm a crying baby | check for hunger and a wet nappy | hold it close and hum | dim the light and walk slowly
repair a flat bicycle tyre | lever the tyre off the rim | roughen the tube around the hole
    | press the patch on firmly before pumping
wash a wool sweater | use cool water and a mild soap | squeeze it without wringing | dry it flat on a towel
start a compost heap | mix kitchen scraps with dry leaves | keep it as damp as a wrung sponge
    | turn it over every other week
split the rent fairly with flatmates | measure the rooms | agree what a balcony or a bathroom is worth
    | write the shares down and sign them
keep a long-distance friendship going | fix a regular evening for a call | send small photos of ordinary days
    | plan the next visit before the last one ends
choose a good watermelon | look for a creamy yellow spot | lift it and take the heavy one
    | knock and listen for a deep sound
""")
