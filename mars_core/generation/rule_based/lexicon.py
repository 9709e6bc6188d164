"""English wordings that may stand for one another: the data of the rule-based paraphraser.

A line of `SYNONYMS` is `this = that = other` (each for each) or `this > that | other` (one way).
Inflected forms are listed, never derived: `find out/found out = discover/discovered`. Behind the
wordings may stand guards: `!to of` words that must not follow (`.` is the end of a clause, `#` a
word in -ed or -en), `<the a` words that must not precede, and `^` in front for wordings that only
begin a sentence.
"""

import re
from typing import NamedTuple

SYNONYMS = """
# Contractions and their long forms.
do not > don't
don't > do not !you I we they he she it the people
does not > doesn't
doesn't > does not !he she it that this the
did not > didn't
didn't > did not !you I we they he she it that this the
is not > isn't !only
isn't > is not !it he she that this there the
are not > aren't !only
aren't > are not !you we they there these those
was not > wasn't !only
wasn't > was not !it he she that this there I
were not > weren't !only
weren't > were not !you we they there these those
cannot > can't
can't > cannot !you I we they he she it the people
will not > won't
won't > will not !you I we they he she it
would not > wouldn't
wouldn't > would not !you I we they he she it that
could not > couldn't
couldn't > could not !you I we they he she it
should not > shouldn't
shouldn't > should not !you I we they he she it
has not > hasn't
have not > haven't
I am > I'm !. and or but in on at <what where who how than as am
I'm > I am
you are > you're !. and or but in on at <what where who how than as
you're > you are
we are > we're !. and or but in on at <what where who how than as
we're > we are
they are > they're !. and or but in on at <what where who how than as
they're > they are
it is > it's !. and or but in on at <what where who how than as is so
it's > it is !been got had #
that's > that is !been got had #
there's > there is !been got had #
there is > there's !. <what where who how than as
he's > he is !been got had #
she's > she is !been got had #
you'll = you will !. not
I'll = I will !. not
we'll = we will !. not
they'll = they will !. not
it'll > it will
I've > I have
I have been > I've been
I have heard > I've heard
I have seen > I've seen
I have found > I've found
I have done > I've done
I have read > I've read
I have never > I've never
I have always > I've always
you have been > you've been
we have been > we've been
they have been > they've been
you've > you have
we've > we have
they've > they have
I'd like > I would like
I would like > I'd like
I'd love > I would love
I'd recommend > I would recommend | I'd suggest
I would recommend > I'd recommend | I would suggest
I'd suggest > I would suggest | I'd recommend
you'd like > you would like
let's > let us !.
# Words and phrases.
usually = typically = generally <very
often = frequently <how so more most very as quite too
sometimes = at times = occasionally
rarely = seldom <very
really > truly <not no oh !.
truly > really <yours
very > really !much well <the not a so
almost = nearly !all
approximately = roughly
mainly = mostly = primarily
especially = particularly <not
quickly = rapidly <as how more too
extremely = incredibly
completely = entirely = totally
definitely = certainly
probably > most likely
perhaps = maybe
exactly = precisely
properly = correctly
regularly = on a regular basis !scheduled
constantly = continually
gradually > little by little | bit by bit
suddenly = all of a sudden
originally = initially
commonly > often <most more very
slightly > a bit | a little
carefully > with care !consider # <more very
obviously = clearly
basically = essentially
currently = at the moment = at present
right now > at the moment | at present
immediately = right away = at once
these days = nowadays
all the time > constantly
over time > with time | gradually
at first = initially !glance sight
in the end = ultimately = eventually
eventually > in time
meanwhile = in the meantime
anyway > in any case
every day = each day
each other = one another
for example = for instance
such as > like !this these that
a lot of = lots of = plenty of <quite such
many > numerous | lots of <how as so too very not many the of that great good this these in are
several > a number of <the these those
a number of > several
a few > some | several <quite only just the
a couple of > a few | two or three <the
kinds of = types of = sorts of
kind of = sort of
can just > can simply
could just > could simply
to just > to simply
is just > is simply
it's just > it's simply !been
as well as > along with <just do works
because > since !of <just is was it's that's only
although > though | even though
even though > although | though
in order to > to | so as to
due to > because of | owing to
because of > due to | on account of <it's just only
regarding > about | concerning
with regard to > regarding | concerning
instead of > rather than
apart from = aside from
in spite of = despite
whether or not > whether
as long as = so long as <twice times just
as soon as possible > at the earliest opportunity
till > until
on the internet = on the web
everyone = everybody
someone = somebody
anyone = anybody
no one = nobody
nothing else > nothing more
most people > the majority of people
at least > no less than <or very
big > large !deal brother sister bang fan picture time data apple
large > big <at by
difficult > hard | challenging
easy > simple !going <take it's
simple > straightforward
small > little !business talk print
whole = entire
main = primary
additional > extra | further
extra > additional
helpful = useful <be
interesting > intriguing
beautiful > lovely
great > excellent | wonderful !deal many big britain wall war depression grandmother grandfather <a
wonderful > lovely | marvellous
terrible = awful
huge = enormous
famous > well-known !for
suitable = appropriate
delicious = tasty
ill > sick !will
sick > ill !of and
wealthy = rich !in
expensive > costly | pricey
cheap > inexpensive
strange = odd
brief > short
modern > contemporary
scared > frightened
worried about = concerned about
similar to > comparable to
ready to > prepared to
happy to = glad to
various > different | several <a
illegal to > against the law to
important to > essential to !me him her you us them the my people note
essential to > important to
unable to > not able to
incorrect > wrong
correct answer = right answer
wise to > sensible to
a good idea to > wise to | sensible to <such
a good way to > an effective way to | a useful way to
buy/buys/bought/buying > purchase/purchases/purchased/purchasing !. into in out
purchased/purchasing > bought/buying
begin/begins/began/beginning > start/starts/started/starting <the beginning from very
start by = begin by
start to/starts to/started to = begin to/begins to/began to <from the
starting with = beginning with
select/selects/selected > choose/chooses/chose <a the are is be been was were and
choose/chooses/choosing > pick/picks/picking !to between from
obtain/obtained/obtaining > get/got/getting <be is are was were been
require/requires > need/needs
attempt to/attempted to/attempting to > try to/tried to/trying to <an the any this his her their your my
try to/tries to/tried to/trying to > attempt to/attempts to/attempted to/attempting to
utilize/utilizes/utilized/utilizing > use/uses/used/using
assist you with/assisting you with = help you with/helping you with
assist you in > help you in
can I help = can I assist !.
allow/allows/allowed/allowing > permit/permits/permitted/permitting !for
reduce/reduces/reduced/reducing = decrease/decreases/decreased/decreasing !to
create/creates/created/creating > make/makes/made/making
build/builds/built/building > construct/constructs/constructed/constructing !up on . # <the a this that
occur/occurs/occurred/occurring = happen/happens/happened/happening !to
find out/finds out/found out/finding out = discover/discovers/discovered/discovering !about more if
talk about/talks about/talked about/talking about = discuss/discusses/discussed/discussing !. how
talk to/talking to/talked to = speak to/speaking to/spoke to !.
talk with/talking with = speak with/speaking with !.
look for/looks for/looked for/looking for = search for/searches for/searched for/searching for !. ward
take care of/takes care of/taking care of = look after/looks after/looking after
deal with/deals with/dealing with > handle/handles/handling !. <a the big great
carry out/carries out/carried out = perform/performs/performed
come up with > think of
figure out/figuring out > work out/working out
get rid of/getting rid of > remove/removing
throw away > discard | throw out
check out > take a look at
point out that > note that
lead to/leads to/led to/leading to > result in/results in/resulted in/resulting in
prevent/prevents/prevented/preventing > stop/stops/stopped/stopping
avoid/avoiding > steer clear of/steering clear of !.
receive/receives/received/receiving > get/gets/got/getting <be is are was were been well
gather/gathers/gathered/gathering = collect/collects/collected/collecting !around together <a the
provide/provides/providing > give/gives/giving !you me him her us them with for . that
consider > think about !it him her them that myself yourself the
consists of > is made up of
seems/seem = appears/appear !like as
seems like > looks like
remain/remained > stay/stayed
protect/protects/protecting > safeguard/safeguards/safeguarding
recommend/recommends/recommended/recommending > suggest/suggests/suggested/suggesting !to
enjoy/enjoys/enjoyed > like/likes/liked !. it <to
improve your > enhance your
improve the > enhance the
finish the > complete the
finish your > complete your
contact your > get in touch with your
contact the > get in touch with the
contact a > get in touch with a
learn about/learning about > find out about/finding out about
learn more about > find out more about
have to/has to/had to = need to/needs to/needed to !do . <will would does what
keep in mind = bear in mind !.
keep in mind that > remember that
remember to > don't forget to <I always please will you
make sure to = be sure to
make sure that = ensure that
make sure you = ensure you
make sure your = ensure your
make sure the = ensure the
you ought to = you should !not
you might want to = you may want to
you can also > you could also
responded/responding > replied/replying !.
explained/explaining > described/describing !to that why
speed up = accelerate
stay calm = keep calm
problem/problems > issue/issues <no math word my not any
kid/kids = child/children
mom = mother
mum = mother
dad = father
movie/movies > film/films
photo/photos > picture/pictures
doctor/doctors > physician/physicians
lawyer/lawyers = attorney/attorneys
mistake/mistakes > error/errors <by no my and
advice = guidance !from
fridge = refrigerator
info > information
goal/goals > objective/objectives
advantage/advantages > benefit/benefits <take taking takes took an
disadvantage/disadvantages = drawback/drawbacks
vacation/vacations > holiday/holidays
nation/nations > country/countries
the store = the shop
amount of = quantity of
variety of = range of
method/methods > approach/approaches
ingredient list > list of ingredients
I think that = I believe that <do what
I think > I believe | I'd say !about of so . <do what should
I believe > I think !in so . <do what
I don't know > I'm not sure !him her them any that it much you .
I'm not sure > I'm not certain
I'm sorry, > I apologize, | my apologies, | sorry,
I want to > I'd like to | I would like to <do what that if what
I'd like to > I want to | I would like to
do you want to > would you like to
if you want to = if you'd like to = if you wish to
if you want, = if you like,
I can't > I'm unable to !. help believe wait stand
I need help with > I'd like some help with | I could use some help with
let me know if = tell me if
let me know what = tell me what
let me know how = tell me how
feel free to > don't hesitate to
I hope this helps > I hope that helps | hope this helps
I hope that helps > I hope this helps
for more information > for further information | to learn more
as much as possible > as far as possible
you will > you are going to !be need have not
I'm going to > I will | I am going to
I am going to > I will
we're going to > we will
they're going to > they will
you can > you could | you're able to !also not
you could > you might !also
might = may !not
may be able to = might be able to
want a > would like a <who that which
I want > I'd like !to you him her them it that
do you want > would you like !to me him her
you want to > you'd like to | you wish to
I wanted to > I was hoping to
wonder if = wonder whether
wondering if = wondering whether
know if = know whether
sure if = sure whether
check if = check whether
see if = find out if = check whether
ask if = ask whether
asked if = asked whether
decide if = decide whether
here's = here is !to the
here are some > below are some | these are some
here are a few > below are a few | these are a few
here are > below are | these are !you we they
there are some > there are a few !who
it looks like = it seems like = it seems that
it sounds like > it seems like | it seems that
sounds like a = seems like a
sounds great > sounds wonderful
sounds good > sounds fine
good idea = fine idea
good way to > useful way to | effective way to
good choice > fine choice
good question > great question
a bad idea > not a good idea
good for you > beneficial for you <are is's
nice > pleasant !to and
funny > amusing
is fun > is enjoyable
a fun > an enjoyable
hard to > difficult to
harder > more difficult <work try working trying
easier > simpler
easiest > simplest
bigger > larger
faster > quicker <go run
fastest > quickest
many people > a lot of people | lots of people <how so as too
lots of people > many people
some people > certain people
other people > others
people who > those who <these those most many of the other some young old all two three few
people that > people who
someone who > a person who
things that > things which
things like > things such as
stuff > things <of
a lot > a great deal !of more to
a lot more = much more
a lot about > much about
more and more > increasingly
most of the > the majority of the
the same as > identical to
again = once more !and
once again = once more
later on = later
for a while = for some time
next to > beside
close to > near !being <very so too how
all over the > across the | throughout the
around the world > across the world | all over the world
tonight > this evening
on your own = by yourself
on my own = by myself
for free > at no cost
as far as I know > to my knowledge
I guess > I suppose !. so
I suppose > I guess !. so
to be honest = frankly
honestly, > frankly,
said that > stated that !. is was
says that > states that !.
means that > implies that <this
think about/thought about/thinking about > consider/considered/considering !. how <you to
ask for/asked for/asking for > request/requested/requesting !. permission help
help with > assist with <your my any the some of no more for need want
help me with > assist me with
your help > your assistance
some help > some assistance !.
more help > more assistance
of help > of assistance
glad to hear = pleased to hear = happy to hear
I'm glad you > I'm happy you | I'm pleased you
I'm glad to > I'm happy to
I'm glad I > I'm happy I
I'm glad that > I'm happy that
happy to help > glad to help | pleased to help
sorry to hear > sad to hear
that's true = that's right = that's correct
that is true = that is right = that is correct
is that true = is that right = is that correct
is it true that > is it the case that
bye > goodbye <good
goodbye > bye
is there anything else = is there something else
is there anything I > is there something I
take a look = have a look
take a break = have a break
make money > earn money
make a list > write a list
to use > to make use of <able used how
can use > can make use of
should use > should make use of
feel like > feel as if !a it doing going
learn how to > find out how to
learn more > find out more !about
give you > offer you <to's
I hope you > I hope that you
I think you > I think that you !.
I think it > I think that it | I believe it
I think it's > I believe it's | I'd say it's
I think this > I believe this
I think that's > I believe that's | I'd say that's
I don't think > I do not think | I don't believe !so
I don't have > I do not have | I have no !any a an to the
I don't want > I do not want
I know that > I understand that
I understand that > I know that
I feel like > I have the feeling that !a it doing going
I like > I enjoy !to that how
I love > I really like | I adore
I'd be > I would be
you'd be > you would be
that would be > that'd be
do you have > have you got !to
does that > would that <how what why where when
could be > might be
should be > ought to be
should > ought to !not be I we you have <what how why when where
a person > someone | somebody !of
the person > the individual
long time > long while
each time = every time
at that time > back then
in that case > then
so much > such a lot !.
make it > make this <to
in addition to > besides | along with
as a result of > because of
a bit > a little !of
a little bit > slightly | a little !of
a bit of = a little
any other > any more
something else > another thing
including > such as
without any > without
needed to > required to <I you we they he she
need more > require more
need a > require a
you need > you require !to a more
is called > is known as
are called > are known as
known as > called
refers to > describes
first of all = to begin with
on the other hand > then again
at the same time > simultaneously
these are > those are <if
whole lot > great deal
car/cars > vehicle/vehicles
story/stories > tale/tales
way to > means to <the no best good a only by my your
chance/chances > opportunity/opportunities <a by no any
subject/subjects > topic/topics
topic/topics > subject/subjects
choice/choices > option/options
option/options > choice/choices
wanna > want to
gonna > going to
gotta > have to
awesome > great | wonderful
ok = okay = all right !with <it's is am be that's are
largest = biggest
located in = situated in
is owned by > belongs to
known for = famous for
during > in the course of <time
in the United States > in the US
would you like me to > do you want me to | shall I
would you like to > do you want to <what where how
I would like to know > I'd like to know | I want to know
I'd prefer > I would prefer
you'd prefer > you would prefer
are you interested in > would you be interested in
do you mean > are you referring to !by that . to
have a nice day = have a good day = have a great day
point you to > direct you to
I'm here to help > I'm happy to help
turn into = change into
try it out > give it a try
each of the > every one of the
upset > unhappy !stomach about with
say that > state that !. is was
shows that > demonstrates that
thanks > thank you !to <many no
thank you > thanks !to <to would must
# Beginnings of sentences.
^ if so, > in that case,
^ oh, > ah,
^ how long does it > how much time does it
^ how does > in what way does !that
^ how did > in what way did
^ how has > in what way has
^ how do > in what way do
^ why did > for what reason did
^ why does > for what reason does
^ why is > for what reason is
^ why are > for what reason are !you
^ what was one of the > can you name one of the
^ what is one of the > can you name one of the
^ what is the > what's the
^ what's the > what is the
^ what is a > what's a
^ what's a > what is a
^ what is your > what's your
^ what's your > what is your
^ however, > that said, | still,
^ therefore, = thus, = as a result, = consequently,
^ in addition, = additionally, = besides,
^ furthermore, = moreover, = what is more,
^ finally, = lastly,
^ first, = firstly, = to begin with,
^ second, = secondly,
^ third, = thirdly,
^ next, = after that,
^ in general, = generally, = as a rule,
^ overall, = all in all, = on the whole,
^ of course, = naturally,
^ in fact, = actually,
^ otherwise, > if not,
^ unfortunately, = sadly, = regrettably,
^ fortunately, = luckily,
^ in other words, > that is to say,
^ in my opinion, = in my view,
^ for example, = for instance, = to give an example,
^ I think > in my view, | it seems to me that !about of so .
^ can you > could you
^ could you > can you
^ could you please > can you please | would you please
^ can you please > could you please | would you please
^ how do I > how can I | how would I | what do I do to !know feel
^ how can I > how do I | how could I | what can I do to
^ how would I > how do I | how could I
^ what are some > what are a few | can you name some | could you give me some
^ what are the > can you tell me the | which are the
^ what is the best way to > how do I best
^ what are the best > what are the most effective
^ what is the best way to > what's the best way to | what would be the best way to
^ is it possible to = is there a way to
^ how should I > what should I do to !feel
^ how to > how do I | how can I
^ where can I > where could I
^ what should I > what would you advise me to !. know
^ what can I > what could I
^ should I > do you think I should | would it be wise to
^ can I > could I | is it possible for me to
^ is it safe to > would it be safe to
^ is it okay to > would it be okay to | is it all right to
^ is it legal to > would it be legal to
^ do you have any > have you got any | can you offer any
^ do you have a > have you got a !good
^ are there any > do you know of any | can you think of any
^ is there a > do you know of a
^ is there any > is there some | do you know of any !way reason chance
^ what kind of > what sort of | which kind of
^ what type of > what kind of | which type of
^ what time > at what time
^ how many > what number of
^ I was wondering if > I'd like to know if | I wanted to ask whether
^ I need to know > I'd like to know | I have to know
^ can you help me > could you help me | would you help me
^ can you explain > could you explain | please explain
^ can you give me > could you give me | please give me
^ can you tell me > could you tell me | please tell me
^ why do > why is it that !not .
^ where can I find > where could I find | where can I get
^ what do you think about > what is your opinion on | what are your thoughts on !.
^ what do you think of > what is your opinion of | what are your thoughts on !.
^ do you know > would you happen to know !. any
^ tell me > let me know !a an about some more the your
^ tell me about > give me some information about
^ give me a > provide me with a | I'd like a
^ give me some > provide me with some | I'd like some
^ write a > compose a
^ write an > compose an
^ explain how > describe how
^ hi = hello = hey !.
^ yeah, > yes,
^ yep, > yes,
^ sure, > certainly, | of course,
^ sure! > certainly! | of course!
^ certainly, > of course, | sure,
^ of course! > certainly! | sure!
^ absolutely! > certainly! | of course!
^ no problem > not a problem !.
^ you're welcome! > my pleasure! | happy to help!
^ you're welcome. > my pleasure. | happy to help.
^ good luck! > best of luck!
^ there are many > there are lots of | there are numerous !of .
^ there are several > there are a number of
^ it depends on > that depends on
^ yes, > indeed, | yes indeed, !. I please
^ yes. > yes, indeed.
^ how come > why is it that
^ anything else > is there anything else
^ tell me more > give me more details | go into more detail !about
^ what about = how about
"""

NOUNS = """
animals anxiety apples art bananas basketball beans beef beer bikes birds blankets blood boats bones
books boys bread brothers buses butter cakes carrots cars cats celery chairs cheese chicken children
chocolate cinnamon cities clothes clouds coffee cookies cooking costs countries cows cream crime culture
cups dancing dentists desks doctors dogs drinks dust eggs energy engineers exercise facts families
family farms fathers fear fish flour flowers food football forests friends fruit fruits furniture games
garlic gas girls glass gloves goals gold grass happiness hats health heat height hiking history honey
horses hospitals hotels houses ideas insects jackets juice kids lakes lamps language laws leaves lemons
letters lettuce light lunch magazines math meat medicine men metal milk money mothers mountains movies
mushrooms music nails noise nurses nuts oceans oil onions oranges paint paper parents parks pasta peace
pens pepper phones pictures pigs plants plastic plates poems politics potatoes poverty pride rain
reading religion rice rivers roads rocks rules running safety salt sand sauce schools science screws
shape sheep shirts shoes silver singing sisters size skills sleep snow soap socks soil songs soup speed
spices sports stars stores stories strength stress students style sugar swimming tables talent tea
teachers tennis theft time tips tomatoes tools towels towns toys trains travel trees trucks trust
vegetables violence vitamins war water weather weight width wind wine women wood writing
"""

SMALL_WORDS = """
a all also an and any are as at because being both but by can could do does each even every for from he
her here his how i i'd i'll i'm i've if in is it it's its just many maybe most my no not of on once one
or our people perhaps she should since so some sometimes that that's the their then there there's these
they they're this those to try was we we're were what when where which while who why with would yes you
you're your
"""


class Wording(NamedTuple):
    """One replacement of a phrase and the neighbours that forbid it."""

    replacement: str
    not_before: frozenset[str]
    not_after: frozenset[str]
    begins_sentence: bool


def parse(lines: str) -> dict[str, tuple[Wording, ...]]:
    """Read lines as described at the top; phrases become lower-case keys.

    Raises:
        ValueError: a line's wordings differ in their number of forms.
    """
    found: dict[str, list[Wording]] = {}
    for line in lines.strip().splitlines():
        if line.startswith("# "):
            continue
        body, *guards = re.split(r" (?=[!<]\S)", line.removeprefix("^ "))
        before, after = (
            frozenset(word.lower() for guard in guards if guard[0] == mark for word in guard[1:].split())
            for mark in "!<"
        )
        left, one_way, right = body.partition(" > ")
        sides = [side.split("/") for side in ([left, *right.split(" | ")] if one_way else body.split(" = "))]
        for source in sides[:1] if one_way else sides:
            for target in sides:
                if target is source:
                    continue
                for phrase, replacement in zip(source, target, strict=True):
                    wording = Wording(replacement, before, after, line.startswith("^"))
                    found.setdefault(phrase.lower(), []).append(wording)
    return {phrase: tuple(wordings) for phrase, wordings in found.items()}


LEXICON = parse(SYNONYMS)
PLAIN_NOUNS = frozenset(NOUNS.split())
"""Nouns whose order in "bread and butter" does not matter."""
FUNCTION_WORDS = frozenset(SMALL_WORDS.split())
"""Words without content of their own, which may be written small wherever they stand."""
