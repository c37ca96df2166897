"""What people do in the dialogues: kinds of conversation (frames), each with its possible plots.

A plot is a list of exchanges. "A" is the person who wants something, "B" the other one; which of
them is #Person1# depends on who opens the conversation. An exchange that starts with "?" is left
out half of the time, and "//" separates the lines of one exchange. Every line of a `summary` is
one way to summarize the plot.
"""

from dataclasses import dataclass, field

from grammar import phrases_of, slots_of


def lines(text):
    return [line.strip() for line in text.strip().splitlines() if line.strip()]


@dataclass
class Plot:
    name: str
    mood: str
    exchanges: list
    summaries: list

    def slots(self):
        """The slots of all its templates, those of the phrases included."""
        seen, texts = set(), self.exchanges + self.summaries
        while texts:
            text = texts.pop()
            seen |= slots_of(text)
            texts = texts + [template for name in phrases_of(text) for template in PHRASES[name]]
        return seen - {"A", "B", "a", "b"}


@dataclass
class Frame:
    """`owners`: the role whose first person a slot is written in, where that is not A."""

    register: str
    owners: dict = field(default_factory=dict)
    plots: list = field(default_factory=list)

    def plot(self, name, mood, exchanges, summaries):
        self.plots.append(Plot(name, mood, lines(exchanges), lines(summaries)))


PHRASES = {
    "hi": ["Hi", "Hello", "Hey"],
    "sure": ["Sure", "Of course", "No problem", "Yes", "Certainly", "Gladly"],
    "great": ["Great", "Perfect", "Wonderful", "Sounds good", "Good idea", "Lovely", "Excellent"],
    "ok": ["OK", "All right", "Fine", "Good", "Very well"],
    "alas": ["I'm sorry, but", "Sorry,", "I'm afraid", "Unfortunately,", "Sadly,"],
    "thanks": ["Thanks", "Thank you", "Thanks a lot", "Thank you very much", "Many thanks"],
    "hmm": ["Hmm", "Well", "Oh", "Let me think", "Honestly", "To be honest"],
    "pity": ["That's a pity", "What a shame", "That's too bad", "Oh no", "I was afraid of that"],
    "oh": ["Oh", "Really", "I see", "Oh dear"],
    "deal": ["Deal", "Agreed", "That's fair", "I can live with that", "It's a deal"],
    "want": ["I'd like", "I want", "I would like", "I was hoping", "I need"],
    "maybe": ["Maybe", "Perhaps"],
    "because": ["because", "since", "as"],
    "agrees": ["agrees", "accepts", "says yes"],
}

# How conversations open, by register. An opening that needs a name is used only where there is one.
OPENINGS = {
    "friends": lines("""
        A: @hi{,b}.
        A: @hi{,b}. [How are you|How are things|How is it going]? // B: [Fine, thanks|Not bad|Pretty good|I can't complain]{,a}. [And you?|] [// A: I'm [fine|well|OK], too.|]
        A: @hi, {b}. Do you have a [minute|moment]? // B: @sure{,a}. What is it?
        A: {b}, can I ask you something? // B: [Go ahead|Ask away]{,a}.
        A: [There you are|Good to see you], {b}. // B: @hi{,a}. [What's up?|What's new?]
        A: [Listen|Guess what]{,b}. // B: [Yes|Hm]?
        B: @hi{,a}. [What's up|What's on your mind|What's going on]? // A: @hi{,b}.
        B: [You look busy|You look thoughtful|You are quiet today]{,a}. // A: [A little|Yes, I am]{,b}.
        B: @hi, {a}. [Long time no see|Nice to see you|I didn't expect you here]. // A: [Good to see you, too|Yes, it's been a while]{,b}.
        B: [Did you call me?|You wanted to talk to me?|I got your message.] // A: Yes, [thank you for coming|good that you are here]{,b}.
        B: [Good morning|Good evening|Good afternoon]{,a}. // A: [Good to see you|Oh, hi]{,b}.
    """),
    "service": lines("""
        A: [Excuse me|Hello|Good morning|Good afternoon].
        A: Excuse me, [do you work here|can you help me|are you free]? // B: Yes, [what can I do for you|how can I help]?
        A: [Hello|Good evening], my name is {a}. // B: [Hello|Welcome], {a}. [What can I do for you|How can I help]?
        A: Hello, is that {b}? // B: Yes, [speaking|this is {b}]. How can I help you?
        B: Good [morning|afternoon|evening]. [How can I help you|What can I do for you|Can I help you]?
        B: [Next, please|Hello there|Welcome]. [What can I do for you|What do you need]?
        B: [Hello|Good morning], this is {b} speaking. // A: [Hello|Hi], {b}.
        B: [Hello|Good day], my name is {b}. [How may I help you|What brings you here]? // A: Hello, {b}.
        B: [May I have|What is] your name, please? // A: [It's|My name is|I'm] {a}. // B: [Thank you|All right|Hello], {a}. [What do you need|How can I help]?
        B: [Are you being helped|Is anyone helping you]? // A: No, [not yet|nobody is].
    """),
    "work": lines("""
        A: [Good morning|Excuse me|Hello]{,b}.
        A: [Do you have|May I have] a [moment|minute]{,b}? // B: [Come in|Yes|Sure]{,a}. [What is it|What's the matter]?
        A: [Hello|Good afternoon], {b}. Am I disturbing you? // B: Not at all{,a}.
        B: [Good morning|Come in|Have a seat]{,a}. // A: [Thank you|Good morning]{,b}.
        B: You wanted to see me{,a}? // A: Yes{,b}.
        B: [Take a seat|Sit down], {a}. What can I do for you? // A: Thank you{,b}.
    """),
}

# Small talk, which never belongs to the summary.
SMALL_TALK = {
    "friends": lines("""
        A: [It's so hot|It's freezing|What a rainy day|It's very windy] today. // B: [Yes, I [noticed|can't remember such a day]|The forecast says it will change].
        B: Is that a new [jacket|haircut|bag|phone|hat]? // A: Yes, I got it [last week|on {smallday}|from {smallname}].
        A: Is that [coffee|tea|soup] you have there? // B: Yes, [my second today|I needed something warm|from the place downstairs].
        B: The [bus|train|tram] was late again. // A: [Mine was, too|It's always like that|You should cycle].
        A: Did you see the [game|match|news] last night? // B: No, I [fell asleep early|was reading|was out with {smallname}].
        B: I just saw {smallname} at the [bakery|corner|station]. // A: [How nice|Really|Oh]. We haven't talked in [weeks|ages|months].
        A: My phone is almost dead, by the way. // B: [There is a charger on the desk|Mine, too].
        B: I'm still [tired|sleepy]. I went to bed at [one|two|midnight]. // A: [Poor you|You need more sleep|Have a coffee].
        A: How is [{smallname}|your sister|your brother|your mother]? // B: [Very well, thanks|Busy as always|Much better].
        B: The traffic was [terrible|awful] this morning. // A: [It always is|There was an accident on the bridge].
        A: I like the [flowers|picture|music] in here. // B: [Thanks|My sister chose it|{smallname} brought it].
        B: Did you have lunch already? // A: Yes, [a sandwich|some noodles|a salad].
    """),
    "service": lines("""
        A: It's [busy|quiet|crowded] here today. // B: Yes, it's [always like that on {smallday}s|unusual for this time|the season].
        B: Sorry for the wait. // A: [No problem|That's all right|I'm not in a hurry].
        A: [The rain doesn't stop|It's cold outside]. // B: [Yes, what weather|It should get better tomorrow].
        B: Is this your first time here? // A: [Yes, it is|No, I come often|I was here last year].
        B: One moment, my computer is slow. // A: [Take your time|That's fine].
        A: I had trouble finding a parking space. // B: [Everybody does|There is a garage behind the building].
        A: I talked to your colleague {smallname} before. // B: {smallname} is [off|at lunch|away] today.
        B: How did you find us? // A: [Through a friend|On the internet|I live nearby].
    """),
    "work": lines("""
        B: How was your weekend? // A: [Quiet|Too short|Very nice], thank you.
        A: Is the coffee machine working again? // B: [Since this morning|No, not yet].
        B: Did you find a seat on the train today? // A: [For once, yes|No, I stood all the way].
        A: It's cold in this room. // B: [The heating is off|I'll close the window].
        B: {smallname} sends greetings. // A: [How kind|Thank you]. Say hello to {smallname}.
        B: Did you see the email about the [parking lot|kitchen|elevator]? // A: [Yes, I did|Not yet].
    """),
}

CLOSINGS = {
    "good": lines("""
        A: @thanks{,b}. // B: [You're welcome|My pleasure|Don't mention it|Any time]{,a}.
        A: @great. [See you then|See you|I appreciate it]{,b}. // B: [See you|Bye|Take care]{,a}.
        A: [That's very kind|You're a great help]{,b}. // B: [No problem at all|Glad to help].
        B: [Have a nice day|Take care]{,a}. // A: [You too|Same to you]{,b}.
    """),
    "bad": lines("""
        A: @pity. // B: [I'm really sorry|I know]{,a}.
        A: [Never mind|That's all right]{,b}. // B: [I'm glad you see it that way|All the best].
        A: [I see|Well, too bad]. @thanks anyway. // B: [You're welcome|Goodbye]{,a}.
        B: I'm sorry about that{,a}. // A: [It's not your fault|It can't be helped].
    """),
}

# Friends and colleagues

INVITE = Frame("friends", {"why": "B", "doubt": "B", "alt": "B"})
PHRASES["invitation"] = [
    "[Do you want to|Would you like to|Do you have time to|Why don't we] {act} {day.on}?",
    "[I plan to|I want to|I'm going to] {act} {day.on}. [Are you coming|Do you want to join me|Will you come along]?",
    "[Are you free|Do you have plans] {day.on}? [We could|I'd love to|I'd like to] {act}.",
]
PHRASES["invites"] = ["invites {B} to", "asks {B} to", "wants {B} to", "asks whether {B} wants to"]
INVITE.plot("accept", "good", """
    A: @invitation
    B: [@great, I'd love to|With pleasure|Yes, I have nothing planned|Why not]. [When and where shall we meet|What time]?
    A: [Let's meet|I'll wait for you|How about meeting] {meet} at {clock}.
    ? B: [Isn't that too early|Isn't that a bit late]? // A: [No, that gives us enough time|It's better than hurrying].
    B: [@ok, {clock} it is|I'll be there|That works for me].
    ? A: [Should I bring anything|Do I need to bring anything]? // B: [No, just be on time|Just bring good shoes|Only a good mood].
    """, """
    {A} @invites {act} {day.on}. {B} agrees and they will meet {meet} at {clock}.
    {A} and {B} [will|decide to|are going to] {act} {day.on}. They will meet at {clock} {meet}.
    {B} accepts {A}'s invitation to {act} {day.on}. They will meet {meet} at {clock}.
    """)
INVITE.plot("decline", "bad", """
    A: @invitation
    B: @alas I can't. [You see, |]{why}.
    ? A: [Can't you change that|Are you sure]? // B: [No, I really can't|I wish I could].
    A: [Maybe another time|Then I'll ask {friend}|I'll go with {friend}, then].
    """, """
    {A} @invites {act} {day.on}, but {B} can't come because {why}.
    {A} @invites {act} {day.on}. {B} [declines|refuses] @because {why}.
    {B} can't {act} with {A} {day.on} because {why}.
    """)
INVITE.plot("postpone", "good", """
    A: @invitation
    B: [I'd love to, but|@alas] {why} {day.on}. [Can we do it|How about|What about] {day2.on}?
    ? A: [Let me check my calendar|Wait a second]. // B: [Take your time|Sure].
    A: [Yes, {day2} is fine, too|{day2} works for me|OK, {day2} then]. [Let's say|Be there] at {clock}.
    B: [@great|Deal|I look forward to it].
    """, """
    {A} @invites {act} {day.on}, but {why}. They will do it {day2.on}.
    {A} and {B} put off their plan to {act} from {day} to {day2} because {why}.
    {B} has no time to {act} {day.on} because {why}, so they agree on {day2}.
    """)
INVITE.plot("persuade", "good", """
    A: @invitation
    B: [@hmm, I'm not sure|I don't think so|@hmm, rather not]. {doubt}.
    A: [Don't worry|Come on|That's no problem]{,b}. {perk}.
    ? B: [Are you sure|Is that true|Really]? // A: [Of course|I promise|Absolutely].
    B: [@ok, you convinced me|In that case, I'll come|Then I'll try it].
    """, """
    {A} @invites {act} {day.on}. {B} hesitates because {doubt}, but {A} persuades {B.him}.
    {B} does not want to {act} at first @because {doubt}. {B} agrees when {A} says that {perk}.
    {A} persuades {B} to {act} {day.on} although {doubt}.
    """)
INVITE.plot("counter", "good", """
    A: @invitation
    B: @hmm, {doubt}. [Can't we|Couldn't we|Why don't we] {alt}[ instead|]?
    ? A: [I haven't thought of that|That's a surprise]. // B: [It would be more fun|It's just an idea].
    A: [@great|Why not|I like that, too]. [Let's do that at {clock}|See you at {clock}, then].
    """, """
    {A} wants to {act} {day.on}, but {B} would rather {alt} because {doubt}. {A} agrees.
    {A} @invites {act}. {B} suggests that they {alt} instead, and they will do so {day.on} at {clock}.
    {A} and {B} will {alt} {day.on} instead, because {doubt}.
    """)
INVITE.plot("guest", "good", """
    A: @invitation
    B: [@great|I'd like that]. [May I bring|Can I bring|Is it all right if I bring] {friend}[ along|]?
    A: [@sure|The more the merrier|Yes, there is room for three]. [How do you know {friend}?|]
    ? B: We [work together|went to school together|are neighbors]. // A: [I see|Nice].
    A: [We meet|Let's meet|Be] {meet} at {clock}.
    """, """
    {A} @invites {act} {day.on}. {B} will come and bring {friend}.
    {A} and {B} will {act} {day.on} with {friend}. They will meet {meet} at {clock}.
    {B} accepts {A}'s invitation to {act} and will bring {friend}.
    """)

FAVOR = Frame("friends", {"why": "B"})
PHRASES["favor"] = [
    "[Could you|Can you|Would you] {favor} {day.on}? {cause}.",
    "{cause}. [Could you|Would you|Do you think you could] {favor} {day.on}?",
    "I [need your help|have a favor to ask]. {cause}. [Can you|Could you] {favor} {day.on}?",
]
PHRASES["asks_favor"] = ["asks {B} to", "needs {B} to", "wants {B} to", "would like {B} to"]
FAVOR.plot("accept", "good", """
    A: @favor
    B: [@sure|I'd be happy to|I have time]. [When should I come|What time]?
    A: [At {clock}, if you can.|{clock} would be great.|Can you make it at {clock}?]
    B: [@ok, I'll be there|That's fine with me|{clock} it is].
    ? A: [I owe you one|I'll cook dinner for you one day]. // B: [Don't be silly|I'll remember that].
    """, """
    {A} @asks_favor {favor} {day.on} because {cause}. {B} will come at {clock}.
    {B} @agrees when {A} asks {B.him} to {favor} {day.on} at {clock}.
    {A} needs help because {cause}. {B} will {favor} {day.on}.
    """)
FAVOR.plot("condition", "good", """
    A: @favor
    B: [@ok|I can do that|Yes], but [you have to|first you have to|only if you] {cond}.
    ? A: [That's a bit much|Seriously]? // B: [That's my condition|I'm serious].
    A: [@deal|Fine, I'll do it|No problem].
    """, """
    {A} @asks_favor {favor} {day.on}. {B} agrees, but {A} has to {cond}.
    {B} will {favor} {day.on} if {A} agrees to {cond}.
    Because {cause}, {A} asks {B} to {favor}. {B} wants {A} to {cond} in return.
    """)
FAVOR.plot("decline", "bad", """
    A: @favor
    B: @alas I can't. {why}.
    ? A: [Not even for an hour|Is there no other way]? // B: [No, I can't|I'm afraid not].
    A: [What should I do now|Who else could I ask|Who else has time]?
    B: [Ask|Try|Have you asked] {friend}. [{friend} has time|{friend} likes to help|{friend} lives nearby].
    """, """
    {A} @asks_favor {favor} {day.on}. {B} can't because {why} and suggests asking {friend}.
    {B} can't help {A} {day.on} because {why}. {A} should ask {friend} to {favor}.
    {A} needs help because {cause}. {B} has no time @because {why} and recommends {friend}.
    """)
FAVOR.plot("later", "good", """
    A: @favor
    B: {day}? [That's difficult|That's not possible], {why}. [But {day2} is fine.|I could do it {day2.on}.|Does {day2} work, too?]
    A: [Yes|Well, yes], [that's early enough|it can wait until then|that's also good].
    ? B: [Are you sure|You don't mind]? // A: [Not at all|It's fine, really].
    """, """
    {A} @asks_favor {favor} {day.on}. {B} can only do it {day2.on} because {why}.
    {B} will {favor} {day2.on} rather than {day.on}, because {why}.
    Because {cause}, {A} asks {B} to {favor}. {B} will do it {day2.on}.
    """)

ADVICE = Frame("friends")
PHRASES["tells_problem"] = [
    "{A} [tells {B}|complains to {B}] that {problem}.",
    "{A} asks {B} for advice because {problem}.",
    "{problem}, and {A} asks {B} what to do.",
]
PHRASES["problem"] = [
    "[I don't know what to do.|I need your advice.|I have a problem.] {problem}.",
    "{problem}. [What should I do|What would you do|Do you have an idea]?",
]
PHRASES["tip"] = ["[You should|You could|Why don't you|@maybe you should|I would] {tip}", "The best thing is to {tip}"]
ADVICE.plot("follow", "good", """
    A: @problem
    B: [How long has it been like that|Since when]? // A: For {span} now.
    B: [I had that, too|It's quite common|@oh]. [You should|You could|@maybe you should] {tip}.
    ? A: [Does that help|Does it really work]? // B: [It helped me|It helped {friend}|Most people say so].
    A: [@great, I'll try that|I'll do that {day.on}|You're right, I'll try it].
    """, """
    @tells_problem {B} suggests that {A} {tip}, and {A} will try it.
    {A} will {tip} on {B}'s advice because {problem}.
    {problem}. {B} advises {A} to {tip}.
    """)
ADVICE.plot("second", "good", """
    A: @problem
    B: [Have you tried to|Why don't you|Did you ever] {tip}?
    A: [I tried that, but it didn't help|I did that for {span}. It was no use|I already do that].
    B: Then [you should|you could|try to] {tip2}.
    A: [I haven't thought of that|That's a good idea|That sounds better]. [I'll try it.|]
    ? B: [Tell me how it goes|Good luck]. // A: [I will|Thanks].
    """, """
    @tells_problem {B} advises {A} to {tip2}, since the first idea did not help.
    {B} first tells {A} to {tip} and then to {tip2}. {A} likes the second idea.
    {problem}. {A} will {tip2} as {B} suggests.
    """)
ADVICE.plot("reject", "bad", """
    A: @problem
    B: @tip.
    A: I can't do that. {no}.
    B: Then you could {tip2}.
    A: [No, that's not for me|I don't want that, either|No, I hate that].
    B: [Then I can't help you|Then I don't know, either|I give up].
    """, """
    @tells_problem {B} advises {A} to {tip}, but {A} won't because {no}.
    {B} suggests that {A} {tip} or {tip2}. {A} does not like either idea.
    {problem}, but {A} does not want to {tip} because {no}.
    """)
ADVICE.plot("expert", "good", """
    A: @problem
    B: [That sounds serious|@oh|I'm no expert]. [Talk to|Ask|You should talk to] {friend}. {friend} had the same problem [last year|once|in spring].
    A: [Really|Oh yes]? What did {friend} do?
    B: [I think|As far as I know,] the answer was to {tip}.
    A: [I'll call {friend} {day.on}|I'll talk to {friend}].
    """, """
    @tells_problem {B} tells {A} to talk to {friend}, who had the same problem.
    {problem}. {A} will talk to {friend}, who solved the same problem.
    {B} advises {A} to talk to {friend} because {problem}. {friend}'s answer was to {tip}.
    """)

NEWS = Frame("friends", {"offer": "B"})
NEWS.plot("celebrate", "good", """
    A: [I have good news|Guess what|I can't believe it]. {good}!
    B: [Congratulations|That's fantastic|I'm so happy for you|Well done]! [You must be proud.|You deserve it.|]
    ? A: [I was so nervous|I didn't sleep all night]. // B: [I can imagine|I believe you].
    B: [What will you do now|What's next|What are your plans]?
    A: I [want to|will|plan to] {next} {day.on}.
    B: [That sounds great|I envy you|Good for you].
    """, """
    {A} [tells {B}|is happy] that {good}. {A} will {next} {day.on}.
    {good}. {B} congratulates {A}, who [plans|wants] to {next}.
    {B} congratulates {A} because {good}. {A} wants to {next} {day.on}.
    """)
NEWS.plot("party", "good", """
    A: {good}! [I still can't believe it|I'm so excited|I just heard it].
    B: [Wow|Amazing|Congratulations]! [We have to celebrate that|That calls for a party].
    A: [Yes|You're right]. Come [to my place|to dinner|for cake] {day.on} at {clock}. {friend} is coming, too.
    B: [I'll be there|I'll bring a cake|I wouldn't miss it].
    """, """
    {A} tells {B} that {good}. They will celebrate {day.on} with {friend}.
    {good}. {B} will come and celebrate with {A} and {friend} {day.on} at {clock}.
    {A} and {B} will celebrate {day.on} because {good}.
    """)
NEWS.plot("comfort", "bad", """
    B: [You look sad|What's wrong|Is something wrong]{,a}?
    A: [It's terrible|I'm so upset|I had a bad day]. {bad}.
    B: [I'm sorry to hear that|How awful|Poor you]. How did that happen?
    A: {blame}.
    B: [Cheer up|Don't be sad|Things will get better]. I can {offer}, if you like.
    A: [That would be nice|You're a real friend|I'd like that].
    """, """
    {A} is upset because {bad}. {B} comforts {A.him} and offers to {offer}.
    {bad} because {blame}. {B} offers to {offer}.
    {A} tells {B} that {bad} because {blame}. {B} offers to {offer}.
    """)
NEWS.plot("again", "bad", """
    A: {bad}. [I don't know what to do now|I'm so angry|I feel terrible].
    B: [The same happened to {friend}|{friend} had the same bad luck|That reminds me of {friend}] [last month|last summer|once].
    A: [And how did it end|What happened then]?
    B: [It took {span}, but then all was well again|After {span} it was forgotten]. [Why don't you|You should] {recover}.
    A: [Maybe you're right|I'll do that {day.on}|That's what I'll do].
    """, """
    {A} is upset because {bad}. {B} says that {friend} had the same problem and tells {A} to {recover}.
    {bad}. {B} advises {A} to {recover}.
    {A} will {recover} because {bad}.
    """)

DECIDE = Frame("friends", {"y": "B", "ypro": "B", "xcon": "B"})
PHRASES["want_x"] = ["I'd go for {x}, {xpro}", "[How about|What about] {x}? {xpro}", "I think {x} would be best. {xpro}"]
PHRASES["deciding"] = ["{A} and {B} [talk about|discuss] {question}."]
PHRASES["ask_question"] = ["We [still have to|need to|should] decide {question}.", "[Have you thought about|Do you know] {question}?"]
DECIDE.plot("second", "good", """
    A: @ask_question
    B: [What do you suggest|Do you have an idea|What would you like]? // A: @want_x.
    B: [But|I don't know,|@hmm,] {xcon}. I'd prefer {y}, {ypro}.
    ? A: Isn't {friend} against that? // B: [No, {friend} likes it|I'll talk to {friend}].
    A: [You're right|That's a good point|You have a point]. [Let's take|Let's choose|So it's] {y}.
    """, """
    @deciding {A} wants {x}, but they choose {y} because {ypro}.
    {A} suggests {x}. {B} prefers {y} because {ypro}, and {A} agrees.
    {B} persuades {A} to choose {y} rather than {x} because {xcon}.
    """)
DECIDE.plot("first", "good", """
    A: @ask_question
    B: I [was thinking of|would like|am for] {y}. {ypro}.
    A: [Yes, but|That's true, but] {ycon}. @want_x.
    ? B: [I'm not so sure|That's boring]. // A: [Trust me|You'll like it].
    B: [@ok, let's do that|You win|Then we take {x}].
    """, """
    @deciding {B} wants {y}, but they choose {x} because {xpro}.
    {B} suggests {y}. {A} prefers {x} because {xpro}, and {B} agrees.
    {A} persuades {B} to choose {x} rather than {y} because {ycon}.
    """)
DECIDE.plot("open", "bad", """
    A: @ask_question @want_x.
    B: [No|Please not], {xcon}. [What about|Why not|How about] {y}?
    A: {ycon}. [I don't want that|I'm against it].
    B: [Let's ask {friend}|{friend} should decide|We could ask {friend}].
    A: [@ok|Fine]. I'll [call|ask|write to] {friend} {day.on}.
    """, """
    @deciding {A} wants {x} and {B} wants {y}, so they will ask {friend}.
    {A} and {B} can't agree on {x} or {y}. {A} will ask {friend} {day.on}.
    {B} is against {x} because {xcon}. {friend} will have to decide.
    """)
DECIDE.plot("turns", "good", """
    A: @ask_question
    B: I'm for {y}. {ypro}.
    A: And I'm for {x}, {xpro}.
    B: [Then let's do both|Why not both]. [First|This time] {x}, and [next time|later] {y}.
    A: [@deal|@great].
    """, """
    @deciding They will have {x} first and {y} next time.
    {A} wants {x} and {B} wants {y}. They decide to have {x} first and {y} later.
    {B} prefers {y}, but {A} prefers {x} because {xpro}. In the end they choose both.
    """)

PLAN = Frame("friends", {"task2": "B", "trouble": "B"})
PLAN.plot("split", "good", """
    A: [We have to get ready for|Let's talk about|There is a lot to do for] {event} {day.on}.
    B: [You're right|Yes, it's time|I know]. [What is left to do|Where do we start]?
    A: [I can|I'll|Let me] {task}. [Can you|Will you|Would you] {task2}?
    B: @sure. [How many people are coming|How many will we be]?
    A: [About {count}|I'd say {count}|{count}, if {friend} comes].
    """, """
    {A} and {B} are preparing {event}. {A} will {task} and {B} will {task2}.
    For {event} {day.on}, {A} will {task}, while {B} will {task2}.
    {A} asks {B} to {task2} for {event}. {A} will {task}.
    """)
PLAN.plot("move", "good", """
    A: [How are the plans for|Is everything ready for] {event} {day.on}?
    B: [Bad news|No|Not at all], {trouble}.
    A: [What shall we do|And now]? // B: [Could we move it to|Why don't we move it to|How about] {day2}?
    A: [@ok, I'll tell everybody|That's better than nothing|I'll tell {friend}].
    """, """
    {A} and {B} move {event} from {day} to {day2} because {trouble}.
    {B} tells {A} that {trouble}, so {event} will be {day2.on}.
    They can't have {event} {day.on} because {trouble}. {A} and {B} choose {day2} instead.
    """)
PLAN.plot("cancel", "bad", """
    A: [I'm looking forward to|I can't wait for] {event} {day.on}.
    B: [Haven't you heard?|I have to tell you something.] {trouble}.
    A: [Does that mean it's off|And what does that mean]? // B: [We have to call it off|We can't do it|It's canceled].
    ? A: [Can't we move it|What about another day]? // B: [No, {friend} is away then|No, it's too late for that].
    """, """
    {B} tells {A} that {event} is canceled because {trouble}.
    {A} looks forward to {event} {day.on}, but it is called off because {trouble}.
    {event} won't take place because {trouble}. {A} is disappointed.
    """)
PLAN.plot("helper", "good", """
    A: [I'm worried about|We have too much to do for] {event}. [Who could|Who will] {task2}?
    B: {trouble}, so [we need help|we can't do it]. [But {friend} can do that|Ask {friend}, maybe].
    A: [Is {friend} good at that|Does {friend} have time]? // B: [Yes, I think so|I'm sure of it].
    A: Then I'll ask {friend} {day.on}. And I'll {task}[ myself|].
    """, """
    {A} wants {friend} to {task2} for {event}, because {trouble}. {A} will {task}.
    {A} will {task} for {event} and ask {friend} to {task2}.
    {A} and {B} need help with {event} because {trouble}. {A} will ask {friend} {day.on}.
    """)

HOWTO = Frame("friends")
PHRASES["howto"] = [
    "[Can you tell me|Can you show me|Do you know] how to {goal}?",
    "I want to {goal}. [How do I do that|Where do I start|Can you explain it]?",
]
HOWTO.plot("explain", "good", """
    A: @howto
    B: [It's easy|It's not hard|That's simple]. First [you have to|you] {step}. Then [you have to|you] {step2}.
    ? A: [Slowly, please|Wait, I'll write that down]. // B: [Take your time|It's really simple].
    A: How long does it take? // B: [About|Not more than|Around] {mins} minutes.
    A: [I'll try it {day.on}|I'll do it {day.on}|That's easier than I thought].
    """, """
    {A} asks {B} how to {goal}. {B} tells {A.him} to {step} and then {step2}.
    {B} explains how to {goal}: {A} has to {step} and then {step2}.
    {A} learns from {B} how to {goal}. It takes about {mins} minutes.
    """)
HOWTO.plot("mistake", "good", """
    A: I tried to {goal}, but it didn't work. [What did I do wrong|Do you know why]?
    B: [Tell me what you did|What did you do first]. // A: [First I tried to|I tried to] {step2}.
    B: [That's the mistake|That's too early|Not yet]! First you have to {step}.
    A: [Ah, I see|So that's why|How stupid of me]. [I'll try again.|]
    ? B: It happened to {friend}, too. // A: [That's a comfort|Then I'm not alone].
    """, """
    {A} failed to {goal}. {B} tells {A} to {step} first.
    {A} tried to {goal}, but forgot to {step} first. {B} explains the mistake.
    {B} explains why {A} could not {goal}. {A} has to {step} first.
    """)
HOWTO.plot("visit", "good", """
    A: @howto
    B: First {step}, then {step2}.
    A: [That's too difficult for me|I can't do that|That sounds complicated]. [Could you help me|Can you do it for me]?
    B: [@ok, I'll come over|I can come by|Then I'll show you] {day.on} at {clock}.
    A: [You're the best|That's so kind|You save me].
    """, """
    {A} wants to {goal}, but it is too difficult. {B} will come {day.on} to help {A.him}.
    {B} will show {A} how to {goal} {day.on} at {clock}.
    {A} can't {goal} alone, so {B} will come and help {day.on}.
    """)
HOWTO.plot("unknown", "bad", """
    A: @howto
    B: [No idea|I have no idea|I never did that|I've always been bad at that]. [Ask {friend}|{friend} knows that|{friend} did it last week].
    A: [Do you have the number|How can I reach {friend}]? // B: [Yes, I'll send it to you|Call {friend} after {clock}].
    A: [I'll do that|I'll call right away|Good to know].
    """, """
    {A} wants to know how to {goal}. {B} does not know and tells {A} to ask {friend}.
    {B} can't tell {A} how to {goal} and recommends {friend}.
    {A} will ask {friend} how to {goal}, because {B} does not know.
    """)

# Customers

BOOK = Frame("service")
PHRASES["booking"] = [
    "@want to [book|reserve] {thing} for {day}",
    "[Could I|Can I|Is it possible to] [book|reserve] {thing} for {day}?",
    "[Do you still have|Can I still get] {thing} for {day}?",
]
BOOK.plot("book", "good", """
    A: @booking
    B: [Let me look|One moment|Let me check]. [Yes, that's possible|Yes, we have that|You're lucky]. [It costs|That's|The price is] {price} dollars.
    ? A: Do I have to pay now? // B: [Not now|You can pay later, too|No, that can wait].
    A: [I'll take it|@ok, please book it|That's fine]. And [I'd like|if possible,] {extra}.
    B: [No problem|I'll write that down|I'll see to it]. It's [booked|reserved].
    """, """
    {A} books {thing} for {day} with {extra}. It costs {price} dollars.
    {B} helps {A} to book {thing} for {day}. {A} also wants {extra}.
    {A} reserves {thing} for {price} dollars and asks for {extra}.
    """)
BOOK.plot("reserve", "good", """
    A: @booking
    B: [Let me look|One moment|Let me check]. [Yes, that's possible|Yes, there is one left|You're lucky]. At what time?
    A: [At {clock}, please.|{clock}, if that's possible.|Is {clock} all right?] And [I'd like|if possible,] {extra}.
    B: [No problem|I'll write that down|I'll see to it]. [It's reserved|We'll see you {day.on}].
    """, """
    {A} books {thing} for {day} at {clock} with {extra}.
    {B} reserves {thing} for {A} for {day}. {A} also wants {extra}.
    {A} reserves {thing} for {clock} {day.on} and asks for {extra}.
    """)
BOOK.plot("other_day", "good", """
    A: @booking
    B: @alas [we are fully booked|everything is taken|there is nothing left] {day.on}. [How about|Would you like|What about] {day2}?
    A: [Let me think|@hmm]. {day2}? [Yes, that's possible, too|That's also good|All right, I'll take that].
    B: [At what time|What time would you like]? // A: At {clock}, please.
    ? B: And a phone number? // A: I'll write it down for you.
    """, """
    {A} wants to book {thing} for {day}, but nothing is free, so {A.he} [takes|chooses] {day2} instead.
    {A} books {thing} for {day2} at {clock} because {day} is fully booked.
    {B} has nothing free {day.on}, so {A} reserves {thing} for {day2}.
    """)
BOOK.plot("full", "bad", """
    A: @booking
    B: @alas we have nothing left. [I could offer you|There is only] {day2}.
    A: [No, that's too late|That doesn't work for me], {cause}.
    B: Then I can put you on the waiting list. // A: [No, thanks. I'll try somewhere else|No, I'll ask another place].
    """, """
    {A} wants to book {thing} for {day}, but {B} has nothing free. {A} will try another place.
    {B} offers {A} {day2}, but {A} refuses because {cause}.
    {A} can't get {thing} for {day} and won't take {day2} because {cause}.
    """)
BOOK.plot("cheaper", "good", """
    A: @booking
    B: [@sure|Yes, we have one]. [That will be|It costs|That's] {price} dollars.
    A: [That's more than I can pay|That's too expensive|That's a lot]. [Is there anything cheaper|Do you have something cheaper]?
    B: [There is|I could offer you|We also have] {thing2} for {price2} dollars.
    A: [That's better, I'll take it|That will do|Good, then I'll take that].
    """, """
    {A} finds {thing} too expensive and books {thing2} for {price2} dollars.
    {thing} costs {price} dollars, so {A} takes {thing2} for {price2} dollars.
    {B} offers {A} {thing2} for {price2} dollars because {thing} is too expensive.
    """)
BOOK.plot("change", "good", """
    A: I [booked|reserved] {thing} for {day}. @alas I have to change that, {cause}.
    B: [I see|No problem]. [Which name is it|What's the name]? // A: It's under [my name|the name of {friend}].
    B: [I found it|Here it is]. When would you like to come? // A: {day2}[, at {clock}, please|, please].
    B: [Done|I changed it]. [There is a fee of {fee} dollars|It costs {fee} dollars to change], though.
    """, """
    {A} moves the booking of {thing} from {day} to {day2} because {cause}.
    {B} changes {A}'s booking to {day2} for a fee of {fee} dollars, because {cause}.
    {A} can't come {day.on} because {cause}, so {B} changes the booking to {day2}.
    """)

BUY = Frame("service")
BUY.plot("buy", "good", """
    A: I'm looking for {item}. // B: [Any special wishes|What should it be like]? // A: It should be {feature}. It's for {who}.
    B: [How about|What do you think of] this one? [It's our best|Many people buy it|It's new].
    A: [I like it|It looks good|That's nice]. How much is it? // B: {price} dollars.
    A: [I'll take it|That's a good price|That's fair, I'll take it].
    ? B: [Do you want a bag|Should I wrap it]? // A: [Yes, please|No, thanks].
    """, """
    {A} buys {item} for {who}. It is {feature} and costs {price} dollars.
    {B} sells {A} {item} for {price} dollars. It is for {who}.
    {A} wants {item} that is {feature} and buys one for {price} dollars.
    """)
BUY.plot("bargain", "good", """
    A: How much is [this {item.bare}|the {item.bare} over there]? // B: It's {price} dollars.
    A: [That's a lot|So expensive]. [Would you take {price2}?|I'll give you {price2}.|How about {price2} dollars?]
    ? B: [It's very good quality|I have others who want it]. // A: [It's the last one, isn't it?|I saw it for less online].
    B: [@ok, because it's you|All right, {price2} dollars|@deal].
    A: [Then I'll take it|Good, here is the money]. [It's for {who}.|]
    """, """
    {A} bargains with {B} and gets {item} for {price2} instead of {price} dollars.
    {B} lowers the price of {item} from {price} to {price2} dollars. {A} buys it.
    {A} buys {item} for {price2} dollars after asking for a lower price.
    """)
BUY.plot("leave", "bad", """
    A: I like [this {item.bare}|the {item.bare} in the window]. What does it cost? // B: {price} dollars.
    A: [I can't pay that much|That's too much for me|That's far too expensive]. Can I have it for {price2}?
    B: @alas [I can't lower the price|the price is fixed|that's not possible]. [It's {feature}|It's really {feature}].
    A: [Then I won't take it|Then I'll look elsewhere|I'd better wait for the sale].
    """, """
    {A} likes {item}, but it costs {price} dollars. {B} won't lower the price and {A} does not buy it.
    {A} does not buy {item} because {price} dollars is too expensive.
    {B} refuses to sell {item} for {price2} dollars, so {A} leaves without it.
    """)
BUY.plot("order", "good", """
    A: Do you have {item}? It should be {feature}. // B: [Not at the moment|We just sold the last one|No, it's sold out].
    A: @pity. [I need it for {who}|It's for {who}].
    B: I can order [one|it] for you. It [will be here|arrives] {day.on} and costs {price} dollars.
    A: [Please do that|Good, please order one|Then I'll come back {day.on}].
    """, """
    {A} wants {item} for {who}, but it is sold out. {B} will order one, and it arrives {day.on}.
    {B} has no {item.bare} left and orders one for {day}. It costs {price} dollars.
    {A} orders {item}, which is {feature} and will arrive {day.on}.
    """)
BUY.plot("other", "good", """
    A: @want {item} for {who}. // B: [Here you are|This one is popular]. It costs {price} dollars.
    A: @hmm, [it isn't {feature}|it should be {feature}|I need one that is {feature}].
    B: [Then you should take|In that case, look at|I see. How about] {item2}?
    A: [Oh, that's better|I like that more|That's even nicer]. [How much is it|What does it cost]? // B: {price2} dollars.
    A: [I'll take that one|@great, I'll buy it].
    """, """
    {A} is looking for {item}, but buys {item2} for {price2} dollars because it is {feature}.
    {B} recommends {item2} instead of {item}. {A} buys it for {who}.
    {A} wants to buy {item} for {who}, but takes {item2} instead.
    """)

COMPLAIN = Frame("service", {"excuse": "B"})
PHRASES["complaint"] = [
    "I [want to|have to|must] complain about {item}. {fault}.",
    "There is a problem with {item}. {fault}.",
    "I'm not happy with {item}. {fault}.",
]
PHRASES["complains"] = ["{A} complains to {B} about {item} because {fault}.", "{A} is unhappy with {item} because {fault}."]
PHRASES["when"] = ["[When did you notice that|When did you find out]? // A: {since}.", "[I'm sorry to hear that|I apologize|Oh, I'm sorry]."]
COMPLAIN.plot("refund", "good", """
    A: @complaint
    B: @when
    A: I [want my money back|don't want to pay for that|would like a refund].
    B: Do you have {proof}? // A: [Here it is|Yes, here].
    B: [@ok, you get {price} dollars back|I'll give you {price} dollars back|Here are your {price} dollars].
    """, """
    @complains {B} gives {A} {price} dollars back.
    {A} wants a refund for {item} because {fault}. {A} gets {price} dollars back.
    {B} pays {A} back {price} dollars for {item} because {fault}.
    """)
COMPLAIN.plot("replace", "good", """
    A: @complaint
    B: @when
    B: I can [give you another one|exchange it|bring you a new one]. // A: [How long will that take|And when]?
    B: [It will be done|We can do that|You'll have it] {soon}.
    A: [@ok, that's fine|That's fast|Good, I'll wait for that].
    """, """
    @complains {B} will exchange it {soon}.
    {B} promises to exchange {item} {soon} because {fault}.
    {A} is unhappy with {item} and will get a new one {soon}.
    """)
COMPLAIN.plot("refuse", "bad", """
    A: @complaint
    B: @when
    A: [What are you going to do about it|I want my money back|I'd like a discount].
    B: @alas [there is nothing I can do|I can't help you|we can't pay for that]. {excuse}.
    A: [That's ridiculous|I can't believe it|Then I want to speak to the manager]! [I won't come back|You'll hear from me].
    """, """
    @complains {B} can't do anything because {excuse}.
    {A} complains about {item}, but {B} refuses to do anything. {A} is angry.
    {B} refuses to pay for {item} because {excuse}. {A} is angry.
    """)
COMPLAIN.plot("discount", "good", """
    A: @complaint
    B: [I'm very sorry|Please excuse that]. {excuse}.
    A: [I paid {price} dollars|I expected more for {price} dollars|It cost {price} dollars, after all].
    B: [I understand. I can|You're right. I'll] give you a discount of {percent} percent. // A: [Good|Well, that's something|I accept that].
    """, """
    @complains {B} apologizes and gives {A} a discount of {percent} percent.
    {B} offers {A} a discount of {percent} percent for {item} because {fault}.
    {A} complains about {item} because {fault}. {A} accepts a discount of {percent} percent.
    """)
COMPLAIN.plot("callback", "bad", """
    A: @complaint
    B: @when
    B: @alas I can't decide that alone. [My boss {friend} is not here|Only {friend}, our manager, can do that].
    A: When can I talk to {friend}? // B: {friend} [will call you|is back|has time for you] {day.on}.
    A: [I hope so|All right, I'll wait|That's too long, but OK].
    """, """
    @complains {B} tells {A} to talk to {friend}, the manager, {day.on}.
    {A} is unhappy with {item} because {fault}. {A} has to wait for {friend}, the manager.
    {A} will talk to {friend}, the manager, about {item} {day.on} because {fault}.
    """)

COUNTER = Frame("service")
PHRASES["errand"] = ["@want to {errand}.", "[Can I {errand} here|Where can I {errand}|Am I right here if I want to {errand}]?"]
COUNTER.plot("done", "good", """
    A: @errand
    B: [Yes, that's possible|You've come to the right place|I can do that for you]. [Did you bring|Do you have] {paper}?
    A: [Yes, here|Here you are]. [How much is it|What does it cost]?
    B: [The fee is|It costs|That makes] {fee} dollars. [Please sign here|It takes {mins} minutes].
    ? A: [Can I use your pen|May I sit down]? // B: [Of course|Yes, please].
    """, """
    {A} wants to {errand}. {A} shows {paper} and pays {fee} dollars.
    {B} helps {A} to {errand}. It costs {fee} dollars.
    {A} comes to {errand} and pays a fee of {fee} dollars.
    """)
COUNTER.plot("missing", "bad", """
    A: @errand
    B: @sure. May I see {paper}, please?
    A: [I don't have that with me|I left that at home|Nobody told me that]. [Is it necessary|Can't you make an exception]?
    B: @alas [I can't do it without that|those are the rules|you need it].
    A: [Then I'll come back|I'll bring it|Then I have to come again] {day.on}.
    """, """
    {A} wants to {errand}, but does not have {paper}. {A} will come back {day.on}.
    {A} can't {errand} without {paper} and will come back {day.on}.
    {B} can't help {A} to {errand} because {A} did not bring {paper}.
    """)
COUNTER.plot("fee", "bad", """
    A: @errand How much [does it cost|is that]? // B: {price} dollars.
    A: {price} dollars? [Last year it was {price2}|I thought it was {price2}]!
    B: @alas the prices went up [this month|in spring|in January].
    A: [Then I won't do it|That's too much for me|Then I have to think about it].
    """, """
    {A} wants to {errand}, but the price went up to {price} dollars. {A} won't do it.
    {A} would like to {errand}, but {price} dollars is too expensive for {A.him}.
    It costs {price} dollars to {errand}, which is too much for {A}.
    """)
COUNTER.plot("closed", "good", """
    A: @errand
    B: [Not today|That's not possible at the moment|@alas that has to wait]. {trouble}.
    A: @oh. [When should I come back|When will it be possible]? // B: {day}, [after|from|at] {clock}.
    A: [I'll come back, then|@ok, that's fine]. Do I need anything? // B: [Bring {paper}, please|Just don't forget {paper}].
    """, """
    {A} can't {errand} today because {trouble}. {A} should come back {day.on} with {paper}.
    {trouble}, so {A} has to come back {day.on} to {errand}.
    {B} asks {A} to come back {day.on} because {trouble}.
    """)

HEALTH = Frame("service")
PHRASES["symptom"] = ["{symptom}. [It's getting worse|I can't stand it any more|I'm worried].", "I came because {symptom}.", "{symptom}."]
PHRASES["examine"] = ["[Let me have a look|Let me see]. [Aha|I see].", "[I see|Aha]. [It doesn't look bad|There is some swelling]."]
HEALTH.plot("treat", "good", """
    A: @symptom
    B: How long has this been going on? // A: [For {span}|For about {span}].
    B: @examine It's [only|probably] {diagnosis}. [You should|Please|You have to] {treat}.
    ? A: [Is it dangerous|Will it hurt]? // B: [No, don't worry|Not if you are careful].
    A: [And for how long|For how long]? // B: For {span2}.
    """, """
    {A} sees {B} because {symptom}. {A} has to {treat} for {span2}.
    {A} has to {treat} because {symptom}. {B} thinks it is {diagnosis}.
    {symptom}. {B} advises {A} to {treat}.
    """)
HEALTH.plot("test", "good", """
    A: @symptom
    B: [Did anything happen before|What happened]? // A: {cause}.
    B: @examine I'm not sure. We [should do|need|have to do] {test}.
    A: When? // B: [Come back|Can you come] {day.on} at {clock}. Until then, {treat}.
    A: [All right|I'll do that].
    """, """
    {A} sees {B} because {symptom}. {B} wants to do {test} {day.on}.
    {symptom}, so {B} will do {test} {day.on}. Until then {A} should {treat}.
    {A} has to come back {day.on} for {test} because {symptom}.
    """)
HEALTH.plot("refuse", "bad", """
    A: @symptom
    B: @examine You [need to|must|should] {treat} for {span2}.
    A: [That's not possible|I can't do that], {busy}.
    B: [There is no other way|It won't get better without it|It's important]. [At least|Then at least] {easy}.
    A: [I can do that|That's possible|Well, I'll try].
    """, """
    {B} wants {A} to {treat} because {symptom}, but {busy}. {A} will {easy} instead.
    {A} can't {treat} because {busy}, so {B} tells {A} to {easy}.
    {symptom}. {B} tells {A} to at least {easy}.
    """)
HEALTH.plot("send", "bad", """
    A: @symptom
    B: [Have you had this before|Did this ever happen before]? // A: [Yes, {span} ago|No, never before].
    B: [This is not my field|I can't treat that here]. [I'm sending you|I'll send you] to my colleague {friend}.
    A: [When can I go there|When will that be]? // B: [{friend} has time|You can go there] {day.on}.
    """, """
    {A} sees {B} because {symptom}. {B} sends {A} to {friend}.
    {symptom}. {B} can't help, so {A} will see {friend} {day.on}.
    {B} sends {A} to a colleague, {friend}, because {symptom}.
    """)

LOST = Frame("service")
PHRASES["lost"] = ["I lost {item} [yesterday|this morning|last night] {where}.", "I think I left {item} {where}.", "Has anybody found {item}? I lost it {where}."]
LOST.plot("found", "good", """
    A: @lost
    B: What does it look like? // A: It's {look}.
    B: [Let me look|One moment]. [Is it this one|Here is one like that]?
    A: [Yes, that's it|That's mine]! [Where was it|Who found it]? // B: [{friend} brought it|{friend} found it|{friend} handed it in].
    ? B: [Please sign here|Please show me some identification]. // A: [Here you are|With pleasure].
    """, """
    {A} lost {item} {where}. {B} has it because {friend} handed it in.
    {B} gives {A} {item.the} that {A} lost {where}. {friend} found it.
    {A} gets back {item}, which is {look}, from {B}.
    """)
LOST.plot("not_found", "bad", """
    A: @lost
    B: [Can you describe it|What does it look like]? // A: It's {look}.
    B: @alas [nobody handed in anything like that|we don't have it|it isn't here].
    A: [What can I do|It means a lot to me]. // B: [Leave me your number|Write down your number], and I'll call you [if it turns up|when somebody finds it].
    """, """
    {A} lost {item} {where}, but {B} does not have it. {B} will call if somebody finds it.
    {A} can't find {item}, which is {look}. {A} leaves a number with {B}.
    {B} has not seen {item.the} that {A} lost {where}, but will call {A}.
    """)
LOST.plot("later", "good", """
    A: @lost
    B: [Yesterday's things are not here yet|The box is still at the other office]. [Come back|Try again] {day.on}.
    A: [I can't|That's too late], {cause}. [Can't you call them|Could you ask them]?
    B: [@ok, one moment|Let me try]. What does it look like? // A: It's {look}.
    B: [They have it|Yes, it's there]. You can get it [from {friend} at {clock}|at {clock}. Ask for {friend}].
    """, """
    {A} lost {item} {where}. {B} makes a call, and {A} can get it from {friend} at {clock}.
    {B} finds out that {item.the} is at another office. {A} can get it from {friend} at {clock}.
    {A} needs {item.the} today because {cause}. {friend} will give it to {A.him} at {clock}.
    """)
LOST.plot("home", "good", """
    A: @lost
    B: [Are you sure|Did you really have it with you]? When did you last see it? // A: [At {clock}|Around {clock}], I think.
    B: [Please look in your bag again|Check your pockets again|Did you look in your coat]. // A: [Wait|One second]. {there}!
    B: [You see|There you go|All is well, then]. // A: [How embarrassing|Sorry for the trouble].
    """, """
    {A} thinks that {item.the} is lost, but finds out that {there}.
    {A} asks {B} about {item}, but {there}.
    {A} tells {B} about {item} lost {where}. Then {A} notices that {there}.
    """)

DIRECTIONS = Frame("service")
PHRASES["where_is"] = ["How do I get to {dest}?", "[Where is|Can you tell me the way to] {dest}?", "I'm looking for {dest}."]
DIRECTIONS.plot("walk", "good", """
    A: @where_is
    B: [It's not far|That's easy]. [You have to|Just] {route}, then {route2}. [It's next to|It's right beside|You'll see it next to] {landmark}.
    ? A: [Is it a long way|Could you say that again]? // B: [No, only a short walk|It's really easy to find].
    A: How long does it take [on foot|to walk]? // B: [About|Around] {mins} minutes.
    """, """
    {A} asks {B} the way to {dest}. {A} has to {route} and {route2}.
    {B} tells {A} how to get to {dest}. It is next to {landmark}.
    {B} tells {A} to {route} to get to {dest}. It takes {mins} minutes to walk.
    """)
DIRECTIONS.plot("bus", "good", """
    A: @where_is
    B: [That's too far to walk|Oh, that's far away]. [You'd better take|Take] [bus number {busline}|bus {busline}].
    A: Where does it stop? // B: [Right by|In front of] {landmark}. It [leaves|runs] every {mins} minutes.
    A: [And where do I get off|How many stops is it]? // B: [Get off at the last stop|Ask the driver|It's {stops} stops].
    """, """
    {A} wants to go to {dest}. {B} tells {A.him} to take bus {busline} from {landmark}.
    {B} tells {A} that {dest} is too far to walk and that bus {busline} goes there.
    {A} should take bus {busline} to get to {dest}. It runs every {mins} minutes.
    """)
DIRECTIONS.plot("closed", "bad", """
    A: @where_is
    B: [I'm sorry, it's closed|It's closed at the moment|You can't go there today]. {trouble}.
    A: @pity. [I came all the way for that|Nobody told me that]. // B: It opens again {day.on}.
    A: Is there anything else nearby? // B: [You could go to {dest2} instead|Well, there is {dest2}].
    """, """
    {A} is looking for {dest}, but it is closed because {trouble}. It opens again {day.on}.
    {B} tells {A} that {dest} is closed until {day} and recommends {dest2}.
    {dest} is closed because {trouble}, so {B} tells {A} about {dest2}.
    """)
DIRECTIONS.plot("stranger", "bad", """
    A: @where_is
    B: [I'm new here myself|I'm not from here|I don't know, I only moved here {span} ago]. [Ask at|You could ask at|They will know at] {landmark}.
    A: And how do I get there? // B: [You|Just] {route}.
    ? A: [Is it open|Are they friendly]? // B: [I think so|I hope so].
    """, """
    {A} asks {B} the way to {dest}. {B} does not know and tells {A} to ask at {landmark}.
    {B} can't tell {A} the way to {dest}. {A} should {route} and ask at {landmark}.
    {A} will ask at {landmark} how to get to {dest}, because {B} does not know.
    """)
DIRECTIONS.plot("together", "good", """
    A: @where_is
    B: [What a coincidence, I'm going there, too|I'm going that way, too]. [I work there|I'm meeting {friend} there].
    A: [May I come with you|Can I follow you]? // B: [@sure|With pleasure]. But first I have to stop at {landmark}.
    A: [I don't mind|I have time]. [I only have to be there|I must be there] at {clock}. // B: [That's no problem|We'll be there before that].
    """, """
    {A} wants to get to {dest}. {B} is going there, too, and will take {A} along.
    {B} will take {A} to {dest}, but has to stop at {landmark} first.
    {A} and {B} will go to {dest} together. {A} has to be there at {clock}.
    """)

VIEWING = Frame("service", {"rule": "B"})
PHRASES["view"] = ["I'm here about {home}. [Is it still free|Is it still available]?", "I saw your ad for {home}. [Can I rent it|Is it still free]?", "I'm interested in {home}. What is the rent?"]
VIEWING.plot("take", "good", """
    A: @view
    B: [Yes|It is], it's {price} dollars a month. It has {plus}.
    ? A: [Is it noisy|Are the neighbors nice]? // B: [Not at all|It's a quiet house|They are all very nice].
    A: [That's just right for me|I like that|That's what I need]. [When can I move in|From when is it free]? // B: {day.on}.
    A: [I'll take it|Then I'd like to rent it].
    """, """
    {A} rents {home} for {price} dollars a month. {A} can move in {day.on}.
    {A} likes {home} because it has {plus} and will move in {day.on}.
    {B} rents {home} with {plus} to {A} for {price} dollars.
    """)
VIEWING.plot("negotiate", "good", """
    A: @view
    B: [The rent is|It's] {price} dollars. // A: [I can only pay {price2}|My limit is {price2}|Would you take {price2}]. {minus}.
    B: [@hmm, I could use a quiet tenant|You have a point]. [All right, {price2}|{price2} it is], but {rule}.
    A: [@deal|That's fine with me|I accept that].
    """, """
    {B} lowers the rent of {home} from {price} to {price2} dollars, but {rule}.
    {A} wants a lower rent for {home} because {minus}. They agree on {price2} dollars.
    {A} will rent {home} for {price2} dollars. {B} says that {rule}.
    """)
VIEWING.plot("reject", "bad", """
    A: @view
    B: It costs {price} dollars a month and has {plus}.
    A: [May I look around|Can I see it]? // B: [Of course|Come in].
    A: [I don't like it|It's not for me|@hmm]. {minus}. // B: [But it has {plus}|You won't find anything better].
    A: [No, thank you|I'll look for something else].
    """, """
    {A} looks at {home}, but does not want it because {minus}.
    {A} won't rent {home} for {price} dollars because {minus}.
    {B} shows {A} {home} with {plus}. {A} does not take it because {minus}.
    """)
VIEWING.plot("rule", "bad", """
    A: @view
    B: [Yes|It is]. {price} dollars a month. But {rule}.
    A: [That's a problem|Oh, that's bad]. [Can't you make an exception|Is that so important]?
    B: [I'm sorry, no|Those are the rules|There are no exceptions]. // A: Then I'll [keep looking|have to look for another one].
    """, """
    {A} wants to rent {home}, but {B} says that {rule}. {A} will keep looking.
    {A} can't rent {home} because {rule}.
    {B} makes no exception: {rule}. {A} won't take {home}.
    """)
VIEWING.plot("think", "good", """
    A: @view
    B: [Yes, for {price} dollars|It is, for {price} dollars]. [And|The best thing is that] it has {plus}.
    A: [Nice|I like that]. But {minus}. [I have to talk to {friend} first|I want to ask {friend} first].
    B: [I understand|Fine], but [others want it, too|I can't wait long]. [Tell me|Let me know] {day.on}.
    A: [I'll call you then|You'll hear from me].
    """, """
    {A} is interested in {home} but has to talk to {friend} first. {A} will tell {B} {day.on}.
    {A} likes that {home} has {plus}, but {minus}. {A} will decide {day.on}.
    {A} will talk to {friend} about {home} and call {B} {day.on}.
    """)

# Work and school

INTERVIEW = Frame("work")
PHRASES["apply"] = ["I'm here [for the interview|about the job] as {job}.", "I'd like to work here as {job}.", "I want to apply for the job as {job}."]
PHRASES["experience"] = ["[Do you have any experience|Have you done such work before|What experience do you have]? // A: [Yes|Well], {exp}."]
INTERVIEW.plot("trial", "good", """
    A: @apply
    B: @experience
    ? B: [Why did you leave|Why do you want to change]? // A: [I want to learn more|The way was too long].
    B: [That sounds good|Very good|I like that]. [You can start|Come for a trial] {day.on} at {clock}.
    A: [I'll be there|I'm looking forward to it|That's wonderful]. [And the pay|How much do I earn]? // B: {wage} dollars an hour.
    """, """
    {A} applies for a job as {job}. {A} can start {day.on} for {wage} dollars an hour.
    {B} gives {A} a job as {job} because {exp}. {A} will start {day.on}.
    {A} gets the job as {job} and starts {day.on} at {clock}.
    """)
INTERVIEW.plot("lacking", "bad", """
    A: @apply
    B: @experience
    B: [We need somebody|We are looking for somebody] who {need}.
    A: [I'm afraid that's not me|Not yet, but I learn fast|I could learn that].
    B: @alas [that's not enough|then I can't hire you|we need that from the first day].
    """, """
    {A} applies for a job as {job}. {B} can't hire {A.him} because they need somebody who {need}.
    {B} wants somebody who {need}, so {A} does not get the job as {job}.
    {A} does not get the job although {exp}. {B} needs somebody who {need}.
    """)
INTERVIEW.plot("pay", "bad", """
    A: @apply
    B: @experience
    B: [We pay|The pay is] {wage} dollars an hour[, and you would start at {clock}|].
    A: [That's less than I expected|I hoped for more]. I [want|need] {wage2} dollars. // B: We [can't|don't] pay that much.
    A: [Then I have to say no|Then I don't want the job|Then it's not for me].
    """, """
    {A} refuses the job as {job} because it pays only {wage} dollars an hour.
    {B} offers {A} {wage} dollars an hour as {job}, but {A} wants {wage2}.
    {A} wants to work as {job} for {wage2} dollars an hour. {B} can't pay that much.
    """)
INTERVIEW.plot("wait", "good", """
    A: @apply
    B: @experience
    B: When could you start? // A: [Any time|I could start {day.on}].
    B: [Two others have applied, too|I have to ask {friend} first]. We'll [call|write to] you {day2.on}.
    A: [I look forward to that|I'll wait for your call]. [I really want this job.|]
    """, """
    {A} applies for a job as {job}. {B} will tell {A} the result {day2.on}.
    {A} tells {B} that {exp}. {B} will decide {day2.on} about the job as {job}.
    {B} interviews {A} for a job as {job} and will call {day2.on}.
    """)

REQUEST = Frame("work", {"deny": "B"})
PHRASES["request"] = ["[Could I have|May I have|Can I get] {ask}? {cause}.", "{cause}. [Could I have|Is it possible to get] {ask}?", "I'd like to ask for {ask}. {cause}."]
PHRASES["requests"] = ["{A} asks {B} for {ask} because {cause}."]
REQUEST.plot("grant", "good", """
    A: @request
    B: [I understand|I see]. [Did you talk to {friend}|Does {friend} know]? // A: [Yes, {friend} agrees|Yes, and {friend} will help me].
    B: [@ok, that's fine|Then you can have it|Permission granted].
    ? B: [How are things otherwise|Is everything else all right]? // A: [Yes, fine|Yes, thank you].
    """, """
    @requests {B} agrees, since {friend} does not mind.
    {B} gives {A} {ask} because {cause}.
    {A} gets {ask} from {B}. {friend} agrees as well.
    """)
REQUEST.plot("deny", "bad", """
    A: @request
    B: @alas that's not possible. {deny}.
    A: [But it's important|Please, just this once|I really need it]. // B: [I have to say no|My answer is no|There is nothing I can do].
    A: [I see|That's hard]. [Then I'll ask {friend}|I have to find another way].
    """, """
    @requests {B} refuses because {deny}.
    {B} can't give {A} {ask} because {deny}.
    {A} does not get {ask} @because {deny}.
    """)
REQUEST.plot("condition", "good", """
    A: @request
    B: [Maybe|That depends|@hmm]. {deny}. But [first you have to {cond}|if you {cond}, I'll agree|you can have it if you {cond}].
    A: [@deal|I can do that]. [Until when|By when]? // B: [By|Before] {clock} {day.on}.
    """, """
    @requests {B} agrees, but {A} has to {cond}.
    {B} will give {A} {ask}, but {A} must {cond} by {day}.
    {A} has to {cond} to get {ask} from {B}.
    """)
REQUEST.plot("less", "good", """
    A: @request
    B: [That's a lot|That's too much]. {deny}. [I can offer you|How about|I could give you] {less} instead.
    A: [That helps, too|Better than nothing|@ok, I'll take that].
    ? B: [I hope that helps|I can't do more]. // A: [It does|I know].
    """, """
    {A} asks {B} for {ask} but only gets {less} because {deny}.
    @requests {B} offers {less} instead.
    {B} gives {A} {less} instead of {ask} because {deny}.
    """)

FRAMES = {name: frame for name, frame in globals().items() if isinstance(frame, Frame)}
