"""What the dialogues are about: for every topic, the frames it occurs in and the values of their slots.

Values are separated by semicolons; a slot name with ">" takes several values together; `without` lists the
plots of the frame that do not suit the topic. See grammar.py for the person in which the values are written.
"""

NAMES = {
    # Disjoint, so that a model has to copy names of the test set instead of remembering them.
    "train": {
        "f": """Mary; Anna; Alice; Emily; Jane; Kate; Susan; Helen; Laura; Nina; Clara; Rosa; Eva; Linda; Martha; Sarah;
            Betty; Carol; Diana; Elena; Fiona; Gloria; Hannah; Irene; Julia; Karen; Lily; Maria; Nora; Olga""",
        "m": """John; Peter; Tom; James; Paul; Henry; Jack; George; David; Frank; Robert; Martin; Philip; Simon; Oscar;
            Adam; Ben; Carl; Dan; Eric; Fred; Gary; Hugo; Ivan; Joe; Kevin; Leo; Mark; Nick; Otto""",
    },
    "validation": {
        "f": "Ruth; Emma; Sophie; Lucy; Agnes; Vera; Amy; Bella",
        "m": "William; Charles; Harry; Edward; Victor; Ralph; Steve; Max",
    },
    "test": {
        "f": "Elizabeth; Margaret; Grace; Rose; Jenny; Molly; Sally; Annie; Tina; Ada; Daisy; Ellen",
        "m": "Thomas; Richard; Arthur; Michael; Oliver; Albert; Walter; Sam; Tim; Ned; Louis; Roger",
    },
}

# Slots that every scene has.
# {friend2} is a person whom a value mentions, {friend} one whom a plot needs.
COMMON = {
    "day": """Monday; Tuesday; Wednesday; Thursday; Friday; Saturday; Sunday; tomorrow; next Monday; next Tuesday; next Wednesday;
        next Thursday; next Friday; next Saturday; next Sunday; this Monday; this Thursday; this Friday; this Saturday; this Sunday""",
    "clock": """six; seven; eight; nine; ten; eleven; noon; one; two; three; four; five; half past six; half past seven;
        half past nine; half past two; a quarter past three; a quarter to eight""",
    "span": "two days; three days; a week; two weeks; three weeks; a month; two months; half a year; a year",
    "since": "Yesterday; Two days ago; This morning; Right away; Last night; An hour ago; Last week; Just now",
    "mins": "five; ten; fifteen; twenty; thirty; forty",
    "count": "ten; twelve; fifteen; twenty; thirty; forty; fifty",
    "stops": "three; four; five; six; seven",
    "busline": "2; 4; 6; 9; 12; 15; 18; 21; 30; 42",
    "percent": "five; ten; fifteen; twenty; thirty",
    "smallday": "Monday; Tuesday; Thursday; Friday; Saturday",
    "meet": """at the station; at the bus stop; in front of the town hall; at my house; by the fountain; at the old bridge;
        at the corner cafe; in the park; at the main gate; outside the bakery""",
    "why": """I <have> to finish a report; my parents are coming to visit; my car is at the garage; I <have> an exam soon;
        I <have> to look after my nephew; I <have> a bad cold; my cousin is staying with me; I <am> working late;
        I <have> a doctor's appointment; I hurt my knee; I <am> saving money this month; I <need> some rest;
        my sister is getting married; I <have> a night shift; I <am> picking up {friend2} from the airport;
        I promised to help {friend2}; I <have> to paint the kitchen; my train leaves very early; I <have> band practice;
        my son has a school play; a plumber is coming; I <have> a meeting with {friend2}; my grandmother is ill;
        I <am> going to a funeral; I <have> to repair the roof; I <have> guests from Canada""",
    "cause": """I <have> to work then; I <am> only in town for one day; I <am> leaving for Spain; my daughter is ill;
        my train was canceled; my boss changed my shift; I <have> to meet {friend2} then; my flight leaves that morning;
        I <have> an important exam; I broke my arm; my car broke down; I <have> to visit my mother in the hospital""",
    "busy": """I <have> to work every day; I <have> two small children; I <am> going on a trip; I <have> an exam soon;
        my mother needs my help; I <am> moving this week; I <have> a race on Sunday; there is nobody else in the shop""",
    "deny": """we have too much work; two others are ill; {friend2} is already away; there is no money for that this year;
        I already said no to {friend2}; the rules do not allow that; we have visitors that week; it would not be fair to the others""",
    "who": """my sister; my brother; my mother; my father; my wife; my husband; my son; my daughter; my best friend;
        my grandfather; my aunt; my boss; my neighbor; my nephew; my niece; my teacher; {friend2}""",
    "trouble": """the computer is down; the boss is on vacation; there is no power; half of the staff is ill;
        they are painting the rooms; there was a fire; a water pipe burst; there is a strike; it is a holiday""",
}

PARTY_TROUBLE = """{friend2} is ill; the hall is already taken; it will rain all day; the band can't come; most people are away;
    the oven is broken; there is a strike; we have not enough money; the road is closed; {friend2} has to work"""
PARTY_TASK = """buy the drinks; bake a cake; write the invitations; decorate the room; borrow some chairs; choose the music;
    make a salad; bring a camera; order flowers; bring the plates; hang up the lights; prepare some games; buy candles"""
TRIP_DOUBT = """I <am> not very fit; the weather looks bad; I <have> no money left; it is too far away; I <am> afraid of heights;
    I <don't> have the right shoes; my back hurts a little; I <don't> know anybody there"""
TRIP_PERK = """we can take my car; {friend2} will come, too; the weather will be fine; it does not cost anything;
    I <have> everything we need; there is a good restaurant there; it is only a short way; we can go slowly"""
SHOP_EXCUSE = """the guarantee has run out; it was on sale; the bill is missing; it was used too long; the shop has a new owner;
    the time for returns is over"""

SHOP_SOON = "in an hour; tomorrow; by the evening; in two days; next week; within a week; on Monday; on Friday"

TOPICS = {
    "restaurant": {
        "BOOK": {
            "thing": """a table for two; a table for four; a table by the window; a table on the terrace; the big table;
                a private room; a table for ten; a table near the stage""",
            "without": "book; cheaper",
            "extra": "a birthday cake; a high chair; vegetarian food; fresh flowers; some champagne; a quiet corner",
        },
        "COMPLAIN": {
            "item": "the soup; the fish; the steak; the rice; the salad; the pie; the chicken; the pizza",
            "fault": "it is cold; it is too salty; it tastes strange; there is a hair in it; it came far too late; it is burned",
            "excuse": "the cook is new; we are very busy tonight; everybody else likes it; it is always made like that",
            "soon": "in ten minutes; right away; in a quarter of an hour; in a moment", "proof": "the bill; the receipt",
        },
        "DECIDE": {
            "question": "where to have dinner; where to take our guests; what to eat tonight; where to go with {friend2}",
            "x>xpro>xcon": """the Italian place > the pasta is very good > it is always full;
                the fish restaurant > it is right by the harbor > {friend2} does not eat fish;
                the Indian restaurant > the curry is great > the food is too spicy;
                the burger bar > it is quick and cheap > it is not healthy;
                the new steak house > everybody talks about it > it is too expensive;
                the noodle shop > it is just around the corner > we were there last week;
                the garden cafe > we can sit outside > it is too cold to sit outside""",
        },
    },
    "hotel": {
        "BOOK": {
            "thing": """a double room; a single room; a room with a balcony; a room with a view of the sea; a family room; a quiet room;
                a suite; two single rooms""",
            "thing2": "a room without a view; a small room under the roof; a room with a shared bathroom; a room next to the elevator",
            "extra": "breakfast in the room; a bed for a child; a parking space; a late check-out; a desk; an extra pillow",
        },
        "COMPLAIN": {
            "item": "my room; my hotel room; the room on the second floor; room twelve; the suite; the room by the elevator",
            "fault": """the shower is broken; the heating does not work; it is very noisy at night; there is no hot water; the bed is too soft;
                the window does not close; the carpet is dirty; the light goes on and off""",
            "excuse": "the house is full; the technician is away; it is an old building; there is a wedding party",
            "soon": "in an hour; tonight; in ten minutes; tomorrow morning; this afternoon", "proof": "the bill; your booking",
        },
    },
    "clothes shopping": {
        "BUY": {
            "item": """a winter coat; a blue shirt; a silk scarf; a leather belt; a rain jacket; a summer dress; a wool sweater;
                a straw hat; a red skirt; a black suit""",
            "item2": "a green vest; a gray cardigan; a long cape; a linen jacket",
            "feature": "warm; easy to wash; light; not too formal; waterproof; in a larger size; soft; in a dark color",
        },
        "COMPLAIN": {
            "item": "the jacket; the sweater; the dress; the coat; the shirt; the skirt",
            "fault": """the zipper is broken; the color came off; there is a hole in it; a button is missing; it became too small in the wash;
                the seam is coming apart""",
            "excuse": SHOP_EXCUSE, "soon": SHOP_SOON, "proof": "the receipt; the bill; the guarantee card",
        },
    },
    "electronics": {
        "BUY": {
            "item": "a laptop; a camera; a phone; a radio; a printer; a television; a tablet; a game console",
            "item2": "a smaller model; an older model; a used one; a new model from Japan",
            "feature": "light; easy to use; fast; very quiet; small enough for a bag; good for travel; simple",
        },
        "COMPLAIN": {
            "item": "my new phone; my laptop; the camera; the printer; the radio; the television",
            "fault": """the battery is always empty; the screen is black; it makes a strange noise; it gets very hot; a cable is missing;
                it turns off by itself; the buttons do not work""",
            "excuse": SHOP_EXCUSE, "soon": SHOP_SOON, "proof": "the receipt; the bill; the guarantee card",
        },
    },
    "furniture": {
        "BUY": {
            "item": "a desk; a bookcase; a sofa; a kitchen table; an armchair; a lamp; a bed; a mirror; a carpet",
            "item2": "a model made of oak; a white model; a model from last year; one with wheels",
            "feature": "easy to clean; not too wide; made of wood; cheap to deliver; comfortable; easy to carry; modern",
        },
        "DECIDE": {
            "question": "what to buy for the living room; what to put into the hall; what to get for the guest room",
            "x>xpro>xcon": """a big sofa > there is room for all our guests > it does not fit through the door;
                a bookcase > the books are lying on the floor > we have one already;
                a round table > everybody can sit around it > it takes up too much room;
                a red carpet > it makes the room warm > red does not go with the curtains;
                a tall mirror > it makes the room look bigger > it breaks easily;
                an armchair > it is good for reading > it is too expensive;
                a piano > {friend2} can play for us > the neighbors will complain""",
        },
    },
    "cooking": {
        "HOWTO": {
            "goal>step>step2": """make pancakes > beat the eggs > add the flour; bake bread > warm the milk > add the yeast;
                cook rice > wash the rice > boil it with a little salt; make tomato soup > fry the onions > add the tomatoes;
                roast a chicken > rub it with butter > put it into the oven; make jam > wash the berries > boil them with sugar;
                fry fish > dry the fish > put it into hot oil; make ice cream > beat the cream > freeze it overnight;
                bake an apple pie > peel the apples > roll out the dough; make dumplings > chop the cabbage > fill the dough""",
        },
        "INVITE": {
            "act": """cook dinner; bake cookies; try out a new curry; make pizza at my place; have a barbecue;
                take a cooking class; make sushi""",
            "doubt": "I <am> a terrible cook; I <am> on a diet; my kitchen is a mess; I <don't> eat meat; I always <burn> everything",
            "perk": "I already bought everything; {friend2} will cook most of it; there is something without meat, too; it is very easy",
            "alt": "order something; go out for noodles; have a picnic; meet for breakfast",
        },
        "ADVICE": {
            "problem": """my cakes never rise; my soup always tastes of nothing; my family does not like my cooking;
                my bread turns out too hard; I <have> guests and can't cook; everything burns in my new oven""",
            "tip": "use less heat; follow a recipe; buy fresh herbs; measure everything; cook something simple; use more butter",
            "tip2": "take a class; buy a good cookbook; practice every day; watch some videos; ask a cook for help",
            "no": "I <have> no time for that; I <don't> have enough money; my oven is too old; my family would laugh at me",
        },
    },
    "movies": {
        "INVITE": {
            "act": """see the new space movie; watch a comedy; go to the cinema; see a film about whales; watch an old western;
                go to the film festival; see the new spy movie""",
            "doubt": "I <am> too tired for a movie; I <hate> sad endings; the critics say it is boring; I saw it before; it is too long",
            "perk": "I <have> free tickets; {friend2} says it is great; I'll pay for the popcorn; there is a break in the middle",
            "alt": "stay at home and play cards; go bowling; go to a bar; watch something on television",
        },
        "DECIDE": {
            "question": "which film to watch; what to see at the cinema; what to watch with {friend2}",
            "x>xpro>xcon": """the comedy > we need something to laugh about > the jokes are stupid;
                the horror film > it is really exciting > {friend2} gets scared easily;
                the love story > the actors are very good > it is too sad;
                the cartoon > the children can watch it, too > it is only for children;
                the film about the war > it won a prize > it is three hours long;
                the detective story > nobody can guess the end > we know the end already;
                the old western > the music is famous > it is black and white""",
        },
    },
    "concert": {
        "INVITE": {
            "act": """go to a jazz concert; hear the city orchestra; go to a rock concert; see the opera; hear {friend2} sing;
                go to the music festival; listen to a choir in the church""",
            "doubt": "the tickets are too expensive; I <don't> like loud music; I <have> a headache; I <don't> know the band; it ends too late",
            "perk": "I won two tickets; we can sit in the last row; {friend2} plays the drums; I'll drive you home",
            "alt": "go dancing; meet at the pub; listen to records; go for a walk",
        },
        "BOOK": {
            "thing": """two tickets for the concert; a ticket for the opera; a seat in the first row; four tickets for the musical;
                a box for six people; a place near the stage""",
            "thing2": "a seat in the last row; a place to stand; a ticket for the rehearsal; a seat behind a column",
            "extra": "a program; a parking space; an aisle seat; a student discount; a seat for a wheelchair",
        },
    },
    "sports": {
        "INVITE": {
            "act": """play tennis; go swimming; play basketball; go running in the park; watch the football final; play golf;
                go skating; ride our bikes to the lake; try the climbing wall""",
            "doubt": "I <am> out of shape; my leg still hurts; I <am> not good at sports; it is too hot; I <don't> have any equipment",
            "perk": "I can lend you everything; we will take it easy; {friend2} is a beginner, too; we can go for ice cream afterwards",
            "alt": "play table tennis; watch a game on television; go to the sauna; do some yoga",
        },
        "NEWS": {
            "good": """I won the tennis match; my team won the cup; I ran my first marathon; I got a place on the team;
                my daughter won a medal; I beat {friend2} at chess""",
            "next": "train even more; take part in the next race; buy new shoes; become a coach; rest for a while",
            "bad": "we lost the final; I fell in the race; I <am> no longer on the team; I came last in the race; I broke my racket",
            "blame": "I did not train enough; the other team was much better; the ground was wet; I started too fast; I was too nervous",
            "offer": "train with you; come to the next game; take you out for dinner; talk to the coach",
            "recover": "talk to the coach; take a break; keep training; try another sport",
        },
    },
    "weekend trip": {
        "INVITE": {
            "act": """go hiking in the hills; drive to the beach; take a boat to the island; visit the old castle; go fishing;
                have a picnic at the lake; pick apples on a farm; take the train to the coast""",
            "doubt": TRIP_DOUBT, "perk": TRIP_PERK,
            "alt": "stay in town; go to the zoo; sit in a cafe; visit {friend2}; go to the market",
        },
        "DECIDE": {
            "question": "where to go on our trip; what to do at the weekend; where to spend the holiday",
            "x>xpro>xcon": """the mountains > the air is fresh there > it still snows there;
                the sea > we can swim every day > the beaches are crowded;
                the big city > there are so many shops > the hotels are too expensive;
                the lake > we can rent a boat > there are too many mosquitoes;
                the village > my uncle has a house there > there is nothing to do;
                the desert > the stars are so bright there > it is too hot;
                the island > it is very quiet > the boat makes me sick""",
        },
    },
    "birthday": {
        "PLAN": {
            "event": "the birthday party; the surprise party; grandmother's birthday; the birthday dinner; the party for {friend2}",
            "task": PARTY_TASK, "task2": PARTY_TASK, "trouble": PARTY_TROUBLE,
        },
        "INVITE": {
            "act": "come to my birthday party; celebrate my birthday; come to the party for {friend2}; have birthday cake at my place",
            "doubt": "I <don't> have a present; I <don't> know anybody there; I <am> shy; I <have> nothing to wear",
            "perk": "{friend2} will be there, too; you don't need a present; it is only a small party; there will be live music",
            "alt": "meet just the two of us; go out for coffee; go to the spa",
        },
        "BUY": {
            "item": "a birthday card; a teddy bear; a board game; a silver ring; a gold watch; a bottle of wine; a toy train; a doll",
            "item2": "a box of chocolates; a book about birds; a puzzle; a wooden boat",
            "feature": "pretty; not too childish; easy to wrap; funny; special; small",
        },
    },
    "pets": {
        "FAVOR": {
            "favor": "feed my cat; walk my dog; look after my rabbit; take my parrot; feed my fish; brush my pony; take my dog to the vet",
            "cause": """I <am> flying to Rome; I <have> to stay in the hospital; I <am> at a wedding; my leg is broken; I <have> to work;
                I <am> visiting my son""",
            "cond": "buy the food; leave the key; pay for the taxi; clean the cage first; write down what to do",
        },
        "ADVICE": {
            "problem": """my dog barks all night; my cat scratches the sofa; my dog pulls on the leash; my parrot does not talk;
                my dog is too fat; my cat brings mice home; my puppy eats shoes""",
            "tip": "play with it more; give it less food; change the food; be more patient; buy it a toy; keep it in the kitchen",
            "tip2": "go to a dog school; ask the vet; get a second animal; read a book about animals; take it out more often",
            "no": "I <have> no time; my flat is too small; my husband is against it; it gets angry then",
        },
    },
    "vet": {
        "HEALTH": {
            "symptom": """my dog is limping; my cat does not eat; my rabbit sleeps all day; my dog has a swollen ear; my cat is coughing;
                my horse has a sore leg; my parrot is losing feathers; my dog ate a sock""",
            "diagnosis": "a small infection; an allergy; a bad tooth; a cold; a thorn; a worm",
            "treat": "give it these drops; keep it warm; give it only water; put on this cream; keep it inside; change its food",
            "test": "a blood test; an X-ray; a small operation; a skin test",
            "cause": "it fought with another animal; it fell from a tree; it ate something outside; nothing special",
            "easy": "give it one tablet a day; let it rest at night; keep the wound clean",
        },
    },
    "doctor": {
        "HEALTH": {
            "symptom": """my back hurts; I <have> a sore throat; I <cough> all night; my knee is swollen; I <feel> dizzy; my stomach hurts;
                I <have> a high fever; I can't move my shoulder; I <have> a rash on my arm; I always <feel> tired; my ears ring""",
            "diagnosis": "a virus; a cold; an allergy; stress; a light infection; low blood pressure",
            "treat": """stay in bed; take these tablets; drink a lot of tea; use this cream; stop smoking; put ice on it; do these exercises;
                avoid milk; keep my leg up""",
            "test": "a blood test; an X-ray; a heart test; an allergy test; a scan",
            "cause": "I fell off a ladder; I carried heavy boxes; I ate some old fish; I was out in the rain; nothing special",
            "easy": "sleep eight hours; drink more water; take a walk every day; take one tablet at night; eat more fruit",
        },
        "BOOK": {
            "thing": "an appointment with the doctor; a check-up; an appointment for my son; an eye test; a flu shot; an hour of massage",
            "thing2": "a short check-up; an appointment with the nurse; half an hour with our trainee",
            "extra": "a letter for my boss; a new prescription; an interpreter; a room on the ground floor",
        },
    },
    "dentist": {
        "HEALTH": {
            "symptom": """I <have> a terrible toothache; a tooth broke off; my gums are bleeding; I lost a filling; my wisdom tooth hurts;
                cold drinks hurt my teeth; my jaw is swollen""",
            "diagnosis": "a small hole; an infection; a loose filling; a crack in the tooth",
            "treat": "rinse it with salt water; take these tablets; use a softer brush; eat only soft food; avoid sugar",
            "test": "an X-ray; a small operation; a second check; a deep cleaning",
            "cause": "I bit on a nut; I fell off my bike; a ball hit me; nothing special",
            "easy": "brush my teeth three times a day; chew on the other side; use this gel at night; avoid cold drinks",
        },
    },
    "sleep": {
        "ADVICE": {
            "problem": """I can't fall asleep; I <wake> up at four every night; I <have> bad dreams; I <am> tired all day; my neighbor's music
                keeps me awake; I always <sleep> too long; the baby wakes me up every hour""",
            "tip": "drink less coffee; go for a walk in the evening; read before bed; turn off the phone; open the window; drink warm milk",
            "tip2": "see a doctor; buy a better bed; get up earlier; try ear plugs; do some sport; sleep in another room",
            "no": "I <need> it for my work; I <have> no energy left; it is too cold for that; that makes me nervous",
        },
    },
    "job interview": {
        "INTERVIEW": {
            "job": """a waiter; a cook; a driver; a nurse; an accountant; a gardener; a shop assistant; a guard; a translator;
                a teacher; a carpenter; a receptionist; an engineer; a baker; a mechanic""",
            "exp": """I did the same work for two years; I worked in a hotel before; I learned it from my father; I studied it in college;
                I did the same in the army; I worked for {friend2} last year; I had my own shop; I did the same work every summer""",
            "need": """speaks French; has a driving license; can work at night; can lift heavy things; has worked abroad; is good with computers;
                can start today; likes to travel; has a diploma; can work on Sundays""",
        },
    },
    "work": {
        "REQUEST": {
            "ask": """a day off; a pay raise; two weeks of vacation; a new computer; more time for the report; a desk by the window;
                an assistant; a key to the office""",
            "cause": """my brother is getting married; I <have> to care for my mother; I <am> doing the work of two people; I <am> moving house;
                my old one is too slow; I <have> a new project; my wife had a baby; I <come> in very early""",
            "cond": "finish the budget; train {friend2}; write a plan; take the late shift; find a replacement; work on Sunday",
            "less": "half a day; a small bonus; two more days; a used one; some help from {friend2}; three days",
        },
        "ADVICE": {
            "problem": """my boss shouts at me; I <have> too much work; my colleague {friend2} takes all the credit; I <don't> like my job;
                I <am> always late for work; I <am> afraid of giving a talk; I did not get the promotion""",
            "tip": "talk to my boss; make a plan for the week; take more breaks; practice in front of a mirror; get up earlier; write an email",
            "tip2": "look for a new job; ask for another team; take a vacation; speak to the union; work at home",
            "no": "my boss never listens; I <need> the money; I <am> too shy; my boss would not like it",
        },
        "NEWS": {
            "good": "I got a pay raise; I got the job; I <am> the new manager; my project won a prize; I signed a contract with a big firm",
            "next": "buy a house; take a long vacation; learn Chinese; hire two people; move to the city; work less",
            "bad": "I lost my job; my boss is moving me to another town; I made a mistake in the report; we lost our best customer",
            "blame": "the firm has no money; I was careless; {friend2} gave me the wrong numbers; I was late too often; nobody warned me",
            "offer": "ask my boss about you; help you with the letters; lend you some money; talk to {friend2}; look at the numbers",
            "recover": "look for another job; talk to the boss; take a few days off; write down what happened",
        },
    },
    "school": {
        "REQUEST": {
            "ask": """more time for the essay; a second chance for the test; a letter for the university; another seat in class; extra homework;
                help with the math problems; a better grade""",
            "cause": """I was ill for two weeks; my computer broke; I <want> to study abroad; I can't see the board; I worked very hard;
                I did not understand the question; I <have> to help my parents""",
            "cond": "give a talk; read two more books; write a summary; come to class on time; help {friend2} with math",
            "less": "one more day; a short talk with {friend2}; an easier question; an extra lesson",
        },
        "FAVOR": {
            "favor": "lend me your notes; help me with my essay; explain the math homework to me; test me for the exam; return my books",
            "cause": "I was ill last week; I <don't> understand anything; my exam is next week; I slept in class; I failed the last test",
            "cond": "pay for lunch; clean the board; do the drawing for the project; carry the bags; bring coffee",
        },
        "ADVICE": {
            "problem": """I can't concentrate in class; I failed the math test; I <forget> everything I learn; I <have> to choose a subject;
                I <am> nervous before exams; my son does not do his homework""",
            "tip": "study a little every day; study with {friend2}; make notes; sleep more; sit in the front row; turn off the phone",
            "tip2": "talk to the teacher; take extra lessons; learn in the library; do old exams; make a plan",
            "no": "I <have> a job after school; I <get> bored quickly; I <don't> like that; I <have> too many subjects",
        },
    },
    "bank": {
        "COUNTER": {
            "errand": """open a savings account; change some money; get a new card; close my account; send money to Poland; rent a safe box;
                cash a check; change my address; pay a bill""",
            "paper": "a passport; the old card; a letter from the landlord; an identity card; the account number; a proof of income",
        },
        "ADVICE": {
            "problem": """I never <have> money at the end of the month; my rent is too high; I lent {friend2} a lot of money; I <have> debts;
                I want to save for a house; I <spend> too much on clothes""",
            "tip": "write down what you buy; cook at home; sell my car; save a little every week; make a budget; pay in cash only",
            "tip2": "talk to the bank; find a second job; move to a smaller flat; cancel the card; ask my family",
            "no": "I <need> it for my work; I <am> bad with numbers; my wife is against it; I <have> no time for that",
        },
    },
    "post office": {
        "COUNTER": {
            "errand": """send a parcel to Brazil; pick up a parcel; buy stamps for twenty letters; send a registered letter; rent a mailbox;
                send a telegram; have my mail kept""",
            "paper": "an identity card; the yellow slip; a customs form; the address; a passport; the key",
        },
        "COMPLAIN": {
            "item": "my parcel; my letter; the package from my aunt; the delivery; my order",
            "fault": "it never arrived; it was wet; it was open; it went to the wrong house; it came two weeks late; half of it is missing",
            "excuse": "the address was wrong; nobody was at home; there was a storm; it was badly packed; there was no insurance",
            "proof": "the receipt; the slip; a photo",
        },
    },
    "library": {
        "COUNTER": {
            "errand": "get a library card; return some books; borrow a film; use the computer; copy some pages; reserve a study room",
            "paper": "an identity card; a student card; the library card; a photo; a proof of address",
        },
        "DIRECTIONS": {
            "dest": "the reading room; the history books; the children's section; the map room; the newspapers; the copy machine",
            "route": "go up the stairs; go through the glass door; turn left at the desk; walk to the end of the hall",
            "route2": "turn right; take the second door; go down two steps; go past the shelves",
            "landmark": "the elevator; the exit; the drinks machine; the globe; the music section; the information desk",
            "without": "bus",
        },
    },
    "gym": {
        "COUNTER": {
            "errand": "join the gym; take a yoga class; cancel my membership; rent a locker; try the sauna; book a trainer; use the pool",
            "paper": "a towel; a membership card; a letter from the doctor; clean shoes; a photo; a bank card",
        },
        "ADVICE": {
            "problem": """I <want> to lose weight; I <have> no strength in my arms; I <am> out of breath after one floor;
                I <get> bored at the gym; my back hurts after training; I always <give> up after a week""",
            "tip": "start slowly; train with {friend2}; lift lighter weights; go swimming; warm up first; take the stairs",
            "tip2": "join a class; get a trainer; eat less sugar; change the exercises; set a small goal",
            "no": "I <feel> silly doing that; I <have> no time; I <am> afraid of water; I <don't> like company",
        },
    },
    "lost property": {
        "LOST": {
            "item": """an umbrella; a wallet; a blue bag; a phone; a pair of glasses; a silver ring; a camera; a hat; a set of keys;
                a violin; a passport; a child's coat; a watch""",
            "where": "on the train; on bus number nine; at the station; in the waiting room; in the park; in the cafeteria; at the airport; in a taxi",
            "look": """quite old; almost new; very small; rather big; a bit dirty; marked with my name; very plain; made in Italy;
                an old model; a little scratched""",
            "there": "it is in the other bag; it is in the pocket; it is under the coat; {friend2} has it; it is in the car",
            "cause": "my train leaves soon; I <need> it today; I <live> far away; it is a present for {friend2}; I <am> flying home tonight",
        },
    },
    "directions": {
        "DIRECTIONS": {
            "dest": """the post office; the train station; the hospital; the art school; the town hall; the swimming pool; the airport;
                the old castle; the zoo; the police station; the harbor; the university""",
            "route": "turn left at the lights; go straight on; cross the bridge; walk through the park; follow this street; go past the market",
            "route2": "turn right at the bank; take the second street on the left; go down the hill; walk along the river; cross the square",
            "landmark": "the church; the cinema; the fountain; the drugstore; the bakery; the book shop; the theater; the gas station",
        },
    },
    "rent": {
        "VIEWING": {
            "home": """the flat on Mill Street; the room near the college; the small house; the flat on the top floor; the studio by the river;
                the house with the green door; the flat above the bakery; the cottage""",
            "plus": "a balcony; a new kitchen; a big garden; a garage; a view of the river; two bathrooms; a fireplace; lots of light",
            "minus": """the kitchen is too small; the street is noisy; there is no elevator; it is very dark; the bathroom is old; it is far from
                the station; the walls are thin; there is no heating in the bedroom""",
            "rule": "pets are not allowed; nobody may smoke there; music is not allowed; the deposit is very high; the tenant has to clean the stairs",
        },
        "COMPLAIN": {
            "item": "my flat; the bathroom; the kitchen; the apartment; the bedroom; the basement",
            "fault": """water is coming through the ceiling; the heating is broken; there are mice; the window does not close; the walls are wet;
                there is no power""",
            "excuse": "it was like that before; the plumber is ill; the house is very old; the owner is abroad; that is not in the contract",
        },
    },
    "moving": {
        "FAVOR": {
            "favor": """help me carry my sofa; lend me your van; help me pack the boxes; paint my new room; drive me to the new flat;
                put up my shelves; keep my plants""",
            "cause": "I <am> moving to a new flat; I <have> no car; my brother is ill; I can't do it alone; I hurt my back; the movers canceled",
            "cond": "pay for the gas; order pizza for everybody; find a second helper; clean the van; carry the heavy things",
        },
        "PLAN": {
            "event": "the move; the housewarming party; the garage sale; the farewell party",
            "task": "rent a van; pack the books; buy paint; clean the kitchen; call the landlord; order pizza; borrow tools",
            "task2": "carry the boxes; invite the neighbors; sell the old table; take down the curtains; measure the rooms; clean the windows",
            "trouble": PARTY_TROUBLE,
        },
    },
    "repairs": {
        "FAVOR": {
            "favor": """repair my bike; fix my sink; help me paint the fence; look at my washing machine; hang up my new lamp; mend my gate;
                check my heating""",
            "cause": "it stopped working; I <don't> have any tools; the plumber has no time; my parents are coming to visit; I <am> afraid of doing it wrong",
            "cond": "buy the parts; get a ladder; turn off the water; hold the lamp; make lunch",
        },
        "HOWTO": {
            "goal>step>step2": """change a tire > lift the car > take off the wheel; fix a dripping tap > turn off the water > change the ring;
                paint a wall > cover the floor > paint the corners; hang a picture > measure the wall > drill a hole;
                sharpen a knife > wet the stone > pull the knife over it; glue a chair > clean the wood > press it for an hour;
                change a light bulb > turn off the power > take out the old one; clean a chimney > put out the fire > open the flap""",
        },
    },
    "cars": {
        "BOOK": {
            "thing": "a small car; a van; a car with four doors; a sports car; a car for a week; a driving lesson; a truck; a place in the garage",
            "thing2": "an older car; a car without a radio; a scooter; a car for half a day",
            "extra": "a child seat; a road map; full insurance; snow chains; a second driver",
        },
        "NEWS": {
            "good": "I passed my driving test; I bought a new car; I sold my old car; I won a car",
            "next": "drive to the sea; visit {friend2}; drive to work; paint it red; take my mother for a ride",
            "bad": "I crashed my car; somebody stole my car; I got a parking ticket; I failed my driving test; my car won't start",
            "blame": "I was too fast; I forgot to lock it; I did not see the sign; the road was icy; the battery is dead",
            "offer": "drive you to work; lend you my bike; call a garage; go to the police with you",
            "recover": "call the insurance; take a few lessons; take the bus for a while; buy a used car",
        },
        "COMPLAIN": {
            "item": "my car; the repair; the rental car; the van; my motorbike",
            "fault": "the brakes still squeak; it lost oil; the bill is too high; there is a new scratch; the engine stops at every light",
            "excuse": "it is an old model; the part was expensive; the scratch was there before; the mechanic is away",
            "proof": "the bill; the contract",
        },
    },
    "computers": {
        "HOWTO": {
            "goal>step>step2": """print a letter > turn on the printer > click on the file; send a photo > open the email > add the picture;
                make a website > choose a name > write the first page; delete a virus > close all programs > start the scan;
                save a file > choose a folder > type a name; call my son by video > open the program > click on his name;
                change my password > open the settings > type the old one; back up my photos > connect the disk > copy the folder""",
        },
        "FAVOR": {
            "favor": "look at my computer; help me print my letter; set up my new phone; find my lost photos; type my essay; explain my new camera to me",
            "cause": "the screen is black; it has a virus; I <don't> understand the manual; I <have> to hand in a paper; my son is away",
            "cond": "save all files; find the password; bring the cables; buy a new disk; turn it off until then",
        },
    },
    "weather": {
        "PLAN": {
            "event": "the picnic; the garden party; the boat trip; the football game; the school fair; the barbecue",
            "task": "check the forecast; buy the food; borrow a tent; bring the drinks; call everybody; bring blankets",
            "task2": "rent the boat; bring umbrellas; reserve a table; bring the grill; make sandwiches; ask {friend2} for a tent",
            "trouble": """it will rain all day; a storm is coming; it is going to snow; it will be too hot; the field is under water;
                there will be thick fog; the wind is too strong""",
        },
        "NEWS": {
            "bad": "the storm broke our windows; the rain ruined our picnic; the snow closed our street; lightning hit our tree; our cellar is full of water",
            "blame": "nobody warned us; the roof is old; the river is too high; the wind was very strong; the drain was blocked",
            "offer": "help you clean up; lend you a pump; let you stay at my place; bring you some food",
            "recover": "call the insurance; repair the roof; take photos of everything; cut down the old trees",
        },
    },
    "travel": {
        "FAVOR": {
            "favor": "drive me to the airport; water my plants; lend me your suitcase; take in my mail; pick me up at the station; watch my house",
            "cause": "I <am> flying to Japan; there is a strike; my bag is broken; I <am> away for two weeks; there is no bus that early; I <have> much luggage",
            "cond": "pay for the parking; be ready in time; bring back some tea; leave the key; write a postcard",
        },
        "BOOK": {
            "thing": """a ticket to London; a flight to Paris; a train ticket to Berlin; a seat on the night train; a cabin on the ferry;
                a tour of the island; two seats on the bus to Rome""",
            "thing2": "a seat on the slow train; a flight with a stop; a place on the night bus; a seat without a window",
            "extra": "a window seat; a meal without meat; space for a bike; travel insurance; a blanket",
        },
    },
    "wedding": {
        "PLAN": {
            "event": "the wedding; the wedding party; the engagement party; the wedding of {friend2}",
            "task": PARTY_TASK, "task2": PARTY_TASK, "trouble": PARTY_TROUBLE,
        },
        "NEWS": {
            "good": "I <am> getting married; my sister is getting married; {friend2} asked me to marry; my daughter had a baby; we found a date for the wedding",
            "next": "look for a dress; invite everybody; write a speech; book a hall; tell my parents; buy the rings",
            "bad": "the wedding is off; I lost my wedding ring; I <am> not invited to the wedding; my dress is ruined",
            "blame": "we had a terrible fight; I took it off at the pool; there was a mistake on the list; somebody spilled wine on it",
            "offer": "talk to {friend2}; help you look for it; lend you a dress; stay with you tonight",
            "recover": "wait a few days; call {friend2}; buy a new one; talk about it calmly",
        },
    },
    "neighbors": {
        "ADVICE": {
            "problem": """my neighbor plays the drums at night; the neighbors' dog barks all day; somebody always parks in front of my garage;
                the children next door break my flowers; my neighbor {friend2} never says hello; there is a smell in the stairs""",
            "tip": "talk to them; write them a letter; invite them for coffee; put up a sign; wait a few days; bring them a cake",
            "tip2": "call the police; talk to the landlord; build a fence; look for another flat; make a list",
            "no": "they never open the door; I <am> afraid of them; I <don't> like to quarrel; they moved in before me",
        },
        "FAVOR": {
            "favor": "keep a parcel for me; lend me some sugar; turn down the music for me; lend me your ladder; let my aunt park in your drive; move your car for me",
            "cause": "I <am> out all day; I <have> a headache; the shops are closed; my guests need a place to park; a truck is coming; my aunt can't walk far",
            "cond": "bring a piece of cake; give it back by noon; help with the fence; ring the bell twice; ask {friend2} as well",
        },
    },
    "languages": {
        "ADVICE": {
            "problem": """I can't remember new words; my French is terrible; nobody understands my accent; I <have> to learn German in a year;
                I <am> too shy to speak English; I <make> the same mistakes again and again""",
            "tip": "watch films in that language; learn ten words a day; sing songs; repeat everything aloud; read simple books; write a diary",
            "tip2": "find a teacher; spend a month abroad; join a language club; meet {friend2} every week; listen to the radio",
            "no": "I <get> tired quickly; I <have> no time; I <am> not good at that; I <don't> have enough money",
        },
        "INVITE": {
            "act": "take a Spanish course; join the language club; practice Italian with a teacher; go to the book fair; learn Greek",
            "doubt": "I <am> too old to learn; I <have> a bad memory; it costs too much; I <am> not good at languages",
            "perk": "the first lesson is free; {friend2} is the teacher; we can study together; there are only six people",
            "alt": "learn Japanese; watch a foreign film; write letters to {friend2}; take a dance course",
        },
    },
    "child care": {
        "FAVOR": {
            "favor": "look after my son; pick up my daughter from school; take my twins to the zoo; put the baby to bed; help my son with his homework",
            "cause": "I <have> to work late; I <am> going to the theater; the nanny is ill; my wife is away; I <have> to see the doctor; the school is closed",
            "cond": "bring some toys; cook something for them; be back by ten; leave the car seat; bring warm clothes",
        },
        "INTERVIEW": {
            "job": "a nanny; a babysitter; a helper at the nursery; a summer camp leader; a school bus driver; a swimming teacher for children",
            "exp": """I <have> three younger brothers; I did the same in college; I worked in a nursery; I <have> children of my own;
                I looked after the son of {friend2}; I was a scout leader""",
            "need": "can cook; has a driving license; knows first aid; has time in the morning; speaks English; can swim; plays an instrument",
        },
    },
    "market": {
        "BUY": {
            "item": "a basket of apples; a bag of onions; a box of cherries; a whole cheese; a goose; a jar of honey; a sack of potatoes; a melon",
            "item2": "a box of plums; a pumpkin; a bag of nuts; a basket of pears",
            "feature": "fresh; sweet; from this area; not too big; ripe; good for a pie; cheap",
        },
        "DECIDE": {
            "question": "what to cook for the guests; what to bring to the party; what to buy for dinner",
            "x>xpro>xcon": """fish > it was caught this morning > it has too many bones;
                a goose > there will be ten of us > it takes five hours;
                mushrooms > they are in season > {friend2} is allergic to them;
                a big salad > it is light and quick > nobody will be full after that;
                lamb > it is good with beans > {friend2} does not eat meat;
                a cherry pie > everybody likes it > we have had too much cake lately;
                cheese and bread > nobody has to cook > it is too simple""",
        },
    },
    # Held out: only in the validation and the test set.
    "gardening": {
        "ADVICE": {
            "problem": """my roses are dying; snails eat all my lettuce; nothing grows behind my house; my lawn is brown; my apple tree has no fruit;
                birds eat my berries; my tomatoes stay green""",
            "tip": "water them in the evening; use better soil; cut off the old leaves; put up a net; use less water; buy stronger plants",
            "tip2": "plant something else; ask a gardener; build a greenhouse; dig up everything; wait until spring",
            "no": "I <have> a bad back; I <am> at work in the evening; that costs too much; my wife is against it",
        },
        "FAVOR": {
            "favor": "water my garden; mow my lawn; help me plant a tree; cut my hedge; pick my cherries; lend me your spade",
            "cause": "I <am> away for a week; I hurt my back; my mower is broken; I can't climb a ladder; it has not rained for weeks",
            "cond": "fill the can; give away half of the fruit; sharpen the tools; make some lemonade; dig the hole",
        },
        "BUY": {
            "item": "a rose bush; a lawn mower; a young apple tree; a watering can; a bag of soil; a garden bench; a spade",
            "item2": "a small fig tree; a model with a motor; a set of tools; a pot of herbs",
            "feature": "strong; easy to look after; not too heavy; good in the shade; cheap; quiet",
        },
    },
    "camping": {
        "INVITE": {
            "act": "go camping by the river; sleep in the woods; take the tent to the hills; make a campfire; rent a camper",
            "doubt": TRIP_DOUBT, "perk": TRIP_PERK,
            "alt": "rent a cabin; sleep at a hotel; stay in the garden; take a boat",
        },
        "PLAN": {
            "event": "the camping trip; the weekend in the woods; the trip with the tents; the scout camp",
            "task": "pack the tent; buy matches; bring a map; borrow a stove; buy food for three days; check the lamps",
            "task2": "bring warm blankets; find a camp site; load the car; bring a rope; fill the water bottles; make a list",
            "trouble": "a storm is coming; the tent has a hole; the camp site is closed; {friend2} is ill; the car broke down; there are bears",
        },
        "DECIDE": {
            "question": "where to put up the tent; where to go camping; where to spend the night",
            "x>xpro>xcon": """the river bank > we can swim in the morning > there are too many flies;
                the hill > the view is wonderful > the wind is too strong;
                the pine forest > it is shady and quiet > it is far from the road;
                the farm > we can buy fresh milk there > the dogs bark all night;
                the official camp site > there are showers > it is crowded and loud;
                the beach > we can hear the waves > the sand gets into everything""",
        },
    },
    "hairdresser": {
        "BOOK": {
            "thing": "a haircut; an appointment for a new color; a cut for my son; a shave; a hair wash and a cut; an hour with the best hairdresser",
            "thing2": "a cut by our trainee; a dry cut; a simple cut without a wash",
            "extra": "a head massage; a cup of coffee; a bottle of hair oil; some advice about color",
        },
        "COMPLAIN": {
            "item": "my haircut; my new color; the shampoo; my curls; the cut",
            "fault": "it is much too short; it looks green; it is longer on one side; it burns on the skin; it was gone after a day",
            "excuse": "the trainee did it; the color takes time; everybody wears it like that; it was a special offer",
            "proof": "the bill; the receipt",
        },
    },
    "museum": {
        "INVITE": {
            "act": "go to the art museum; see the dinosaur bones; visit the new gallery; go to the museum at night; see the old coins",
            "doubt": "I <don't> understand art; I <have> been there twice; it is always crowded; my feet hurt; it is too expensive",
            "perk": "{friend2} can explain everything; it is free on that day; there is a nice cafe; they have new pictures",
            "alt": "go to the aquarium; sit in the sun; visit a friend's studio; go to the castle",
        },
        "DIRECTIONS": {
            "dest": "the mummies; the modern art; the museum shop; the stone age room; the paintings by Rembrandt; the museum of science",
            "route": "go up to the second floor; walk through the main hall; turn left after the statue; follow the blue line",
            "route2": "go through the arch; take the stairs on the right; turn left at the big vase; cross the courtyard",
            "landmark": "the cloakroom; the golden gate; the ticket desk; the dinosaur; the cafe; the Roman room",
            "without": "bus",
        },
        "BOOK": {
            "thing": "a guided tour; a tour for twenty children; tickets for the new exhibition; a drawing class; an evening in the museum",
            "thing2": "a tour without a guide; a tour of one hall; a student tour",
            "extra": "a guide who speaks Russian; a wheelchair; an audio guide; a table in the cafe",
        },
    },
    "music lessons": {
        "ADVICE": {
            "problem": "my fingers hurt from the guitar; I can't read notes; my violin sounds terrible; I never <practice> the piano; my daughter wants to stop playing",
            "tip": "play slowly; practice ten minutes a day; change the strings; play with {friend2}; choose easier songs; count aloud",
            "tip2": "find a new teacher; join a band; try another instrument; listen to good records; play in front of people",
            "no": "I <get> bored quickly; my neighbors would complain; I <am> too shy; I <have> no time in the week",
        },
        "BOOK": {
            "thing": "a piano lesson; a trial lesson on the guitar; a course for singers; an hour with the drum teacher; a place in the choir",
            "thing2": "a lesson in a group; half an hour with a student; a lesson online",
            "extra": "a rented guitar; a music stand; a book of songs; a room with a piano",
        },
        "NEWS": {
            "good": "I gave my first concert; I got a place in the orchestra; my son won a music prize; I wrote a song; I bought a cello",
            "next": "play in the street; make a record; learn the flute; practice for the final; start a band",
            "bad": "I broke my violin; my band broke up; I forgot the notes on stage; my teacher is leaving",
            "blame": "I fell down the stairs; nobody had time; I was too nervous; the school has no money",
            "offer": "lend you my guitar; play with you; help you find a teacher; listen to you play",
            "recover": "play something easier; take a break; find new people; buy a used one",
        },
    },
}

HELD_OUT_TOPICS = {"gardening", "camping", "hairdresser", "museum", "music lessons"}

# Dollars, from and to.
PRICES = {
    None: (30, 400),
    "restaurant": (10, 60),
    "market": (5, 50),
    "library": (10, 50),
    "post office": (10, 90),
    "hairdresser": (20, 120),
    "clothes shopping": (20, 250),
    "birthday": (10, 150),
    "rent": (400, 1800),
}
