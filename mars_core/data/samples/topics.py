"""Sentences about everyday topics, and categories of things: the matter of the instruction pairs."""

from mars_core.data.samples.cards import table

# topic | four sentences that can stand alone or follow each other in any order
SENTENCES = table("""
autumn | Leaves turn gold and drift down. | Autumn smells of rain. | Markets fill with apples and late plums.
    | Farmers bring in the last of the harvest before the first hard frost.
the sea | Waves fold over the sand all night. | The sea never keeps still.
    | Gulls argue above the harbour wall. | Far out, a small white sail leans into the afternoon wind.
bread | Warm bread makes any kitchen friendly. | Flour and water become supper.
    | A good crust sings as it cools. | Bakers rise long before dawn so that others wake to fresh rolls.
trains | The night train hums through sleeping towns. | Trains run on patience. | Rails shine after a storm.
    | From a window seat you can watch a whole country change its mind.
cats | Cats choose the sunniest spot at home. | A cat owns its humans. | Every box is a castle for a kitten.
    | My neighbour's old tabby waits on the step until the school bus arrives.
libraries | A library lends you other lives. | Quiet rooms hold loud ideas.
    | Old shelves smell faintly of dust and glue.
    | Our town keeps its reading room open late when exams are near.
winter | Snow hushes every street. | In winter breath becomes visible.
    | Children pull red sledges up the hill at dusk.
    | The lake freezes slowly from its edges until skaters can cross it.
coffee | Fresh coffee wakes the whole house. | A small cup does the work.
    | Beans darken and crackle in the roaster.
    | On cold mornings she holds the mug with two hands and says nothing.
gardens | Bees visit the lavender all day. | Gardens reward patient people.
    | Every seed is a tiny promise of summer.
    | Behind the shed, mint has quietly conquered the last free corner.
music | A song can carry a memory home. | Music needs silence too. | Drums tell the feet what to do.
    | When the choir began, even the tired bus driver took off his cap.
mountains | Mountains make their own weather. | The path climbs past the last pines.
    | Up here the air tastes of stone. | After six hours of walking we shared one orange and a huge view.
bicycles | A bicycle turns breakfast into distance. | Two wheels suffice.
    | Wet brakes squeal at the foot of our street.
    | She learned to ride behind the market hall on her sister's blue bike.
rain | Rain drums softly on the roof. | Puddles borrow the sky for an hour. | Umbrellas bloom.
    | After weeks of dust, the whole village stood outside to get wet.
kites | A kite pulls like a happy dog. | Kites need open fields. | The string hums between cold fingers.
    | His paper dragon rose above the dunes and would not come down.
old houses | Old houses creak at night. | Every stair has its own note. | Thick walls keep July outside.
    | Someone carved two names into the beam above our kitchen door.
soup | Soup forgives nearly every cook. | Onions come first. | A pot on the stove gathers the family.
    | My aunt adds a spoon of vinegar at the end and tells nobody.
birds | Swallows return to the barn in April. | Birds need no map. | One robin sings before the light comes.
    | Along the river, a heron stands so still that ducks forget about him.
letters | A letter waits for its reader. | Stamps are small paintings. | Ink makes a promise look serious.
    | In a shoebox under the bed, she kept each note he ever wrote.
markets | The fish stall opens at six. | Markets wake a town. | Ripe melons are judged by knocking.
    | Between cheese and honey, two old friends argue about football every week.
night | Night makes small sounds large. | Street lamps draw yellow circles.
    | Foxes cross the empty square at three.
    | If you lie on the warm roof, you may count eleven stars and fall asleep.
rivers | A river is never in a hurry. | Rivers remember rain. | Under the bridge the water talks to itself.
    | Every spring it leaves silt on the fields and takes a fence away.
games | Chess rewards a calm mind. | Games teach losing. | Dice are honest but unkind.
    | On Sundays four generations sit at one table and cheat at cards.
school | The bell ends every daydream. | Chalk dust dances in the sun. | School begins with sharp pencils.
    | Our teacher kept a jar of spare buttons, for she could not bear loose threads.
clouds | Clouds are slow animals. | Tall clouds bring thunder by evening.
    | Mist is a cloud that stayed for breakfast.
    | From the plane they looked like a field that somebody had forgotten to mow.
""")

# category | eight members
CATEGORIES = table("""
fruits | apple | banana | cherry | grape | mango | orange | peach | plum
vegetables | bean | cabbage | carrot | leek | onion | pea | potato | spinach
musical instruments | cello | clarinet | drum | flute | harp | piano | trumpet | violin
birds | crow | eagle | heron | owl | robin | sparrow | stork | swallow
trees | ash | birch | cedar | elm | maple | oak | pine | willow
sports | archery | boxing | cricket | fencing | golf | rowing | rugby | tennis
tools | axe | chisel | drill | hammer | pliers | rasp | saw | wrench
pieces of furniture | armchair | bench | bookcase | desk | dresser | sofa | stool | wardrobe
jobs | baker | carpenter | dentist | farmer | nurse | pilot | plumber | teacher
flowers | aster | daisy | iris | lily | orchid | poppy | rose | tulip
spices | anise | cinnamon | clove | cumin | ginger | nutmeg | paprika | saffron
mammals | badger | camel | dolphin | fox | giraffe | otter | rabbit | whale
European cities | Athens | Dublin | Geneva | Lisbon | Madrid | Oslo | Prague | Vienna
items of clothing | coat | glove | hat | jacket | scarf | shirt | skirt | sock
kitchen utensils | bowl | colander | fork | grater | ladle | sieve | spoon | whisk
colours | amber | blue | crimson | green | indigo | orange | purple | white
""")
