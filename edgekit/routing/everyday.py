"""Ordinary texts that are for none of a project's adapters: a router learns from them what it leaves to the fallback.

A text of a kind that a router has seen is easier for it than others.  So there are many kinds, some of them near to
what adapters are for; those in other languages stand in :mod:`edgekit.routing.languages`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from edgekit.routing.languages import LANGUAGES

# Sentences of one kind, and what they are about.
Kinds = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
ENGLISH: Kinds = {
    "countries": (
        ("What is the capital of {}?", "How many people live in {}?", "Which languages do they speak in {}?"),
        ("Portugal", "Kenya", "Canada", "Vietnam", "Chile", "Norway", "Egypt"),
    ),
    "cooking": (
        ("How do I cook {}?", "Give me a simple recipe for {}.", "What goes well with {}?"),
        ("rice", "lentil soup", "apple pie", "roast potatoes", "pancakes", "tomato sauce", "a mushroom risotto"),
    ),
    "poems": (
        ("Write a short poem about {}.", "Tell me a joke about {}.", "Write the first line of a novel about {}."),
        ("the sea", "a lazy cat", "autumn", "two brothers", "the moon", "a train at night", "an old tree"),
    ),
    "science": (
        ("Explain {} to a child.", "What does {} mean?", "Who discovered {}?"),
        ("gravity", "photosynthesis", "inflation", "evolution", "democracy", "electricity", "a black hole"),
    ),
    "programs": (
        ("Write a Python function that {}.", "Why does my program crash when it {}?", "Which library {}?"),
        ("sorts a list", "reads a CSV file", "counts words", "draws a chart", "sends an e-mail", "parses dates"),
    ),
    "translation": (
        ("Translate '{}' into Spanish.", "How do you say '{}' in Italian?", "Is '{}' good English?"),
        ("good morning", "I am hungry", "where is the station", "thank you very much", "see you tomorrow"),
    ),
    "sums": (
        ("What is {}?", "Calculate {} for me.", "Please work out {} step by step.", "{} ="),
        ("17 times 23", "the square root of 144", "15 % of 80", "5 + 9 + 12", "2 to the power of 10", "391 / 17"),
    ),
    "units": (
        ("Convert {} into miles.", "How many metres are {}?", "Is {} a lot?", "{} or less?"),
        ("5 km", "30 °C", "12 feet", "3.5 mm", "2 bar", "120 kg", "6 litres", "45 days", "7.3 volts"),
    ),
    "travel": (
        ("What should I pack for {}?", "Plan {} for me.", "How much does {} cost?"),
        ("a week in Rome", "a hike in the mountains", "a weekend at the beach", "a road trip", "a flight to Tokyo"),
    ),
    "history": (
        ("Who won {}?", "When was {}?", "Tell me something about {}."),
        ("the first World Cup", "the battle of Hastings", "the French revolution", "the moon landing", "the Olympics"),
    ),
    "skills": (
        ("How can I get better at {}?", "Is {} hard to learn?", "Recommend a book about {}."),
        ("chess", "drawing", "playing the piano", "swimming", "public speaking", "gardening", "photography"),
    ),
    "small talk": (
        ("{}", "{} please answer briefly", "Hey, {}"),
        ("how are you?", "who are you?", "what can you do?", "hello there!", "are you a robot?", "thanks, bye!"),
    ),
    "presents": (
        ("Suggest a name for {}.", "Write a birthday card for {}.", "What is a good present for {}?"),
        ("my sister", "a new puppy", "my grandfather", "a small bakery", "a rock band", "our teacher"),
    ),
    "places": (
        ("Will it rain in {} tomorrow?", "What time is it in {}?", "How do I get from the airport to {}?"),
        ("Paris", "New York", "Sydney", "Mumbai", "Berlin", "Lima"),
    ),
    "books": (
        ("Summarize {} in one sentence.", "What happens at the end of {}?", "Who wrote {}?"),
        ("Hamlet", "Moby-Dick", "The Odyssey", "Frankenstein", "Don Quixote", "Pride and Prejudice"),
    ),
    "facts": (
        ("Why {}?", "Is it true that {}?", "Since when do we know that {}?"),
        ("the sky is blue", "cats purr", "leaves turn red", "ice floats", "we dream", "stars twinkle"),
    ),
    "decisions": (
        ("Should I {} or not?", "What speaks against it if I {}?", "Help me decide whether I {}."),
        ("buy a bicycle", "move to a bigger flat", "adopt a dog", "learn to drive", "go on a diet", "change my job"),
    ),
    "food": (
        ("Is {} good for my health?", "How many calories are in {}?", "What vitamins does {} have?"),
        ("an avocado", "dark chocolate", "white rice", "an egg", "oat milk", "green tea"),
    ),
    "medicine": (
        ("What is {}?", "How do doctors treat {}?", "Who found the cause of {}?", "How common is {}?"),
        ("a fever", "diabetes", "a headache", "the flu", "high blood pressure", "a cough", "hay fever"),
    ),
    "law": (
        ("What does a {} do?", "How do I become a {}?", "Do I need a {} to sell my car?"),
        ("notary", "lawyer", "judge", "patent attorney", "tax adviser"),
    ),
    "contracts": (
        ("What is {}?", "Explain {} in simple words.", "Why do contracts have {}?", "Draft {} for me."),
        ("a penalty clause", "a warranty", "a period of notice", "a non-disclosure agreement", "force majeure"),
    ),
    "money": (
        ("How should I save for {}?", "Explain compound interest with {}.", "Is it clever to borrow money for {}?"),
        ("a house", "my pension", "a new car", "my children's studies", "a long holiday"),
    ),
    "markets": (
        ("What is {}?", "How does {} work?", "Write a headline about {}.", "What follows from {}?"),
        ("a stock exchange", "a takeover", "a rating agency", "bankruptcy", "a bond", "an interest rate"),
    ),
    "shopping": (
        ("Which {} should I buy?", "Compare the two best kinds of {}.", "Write a review of a {} that I liked."),
        ("laptop", "vacuum cleaner", "washing machine", "electric bike", "camera", "mattress", "toaster"),
    ),
    "home": (
        ("How do I fix a {} at home?", "My {} makes a strange noise, what could it be?", "How do I mount a {}?"),
        ("dripping tap", "squeaking door", "shelf", "garden gate", "bathroom mirror", "ceiling light"),
    ),
    "school": (
        ("Write an essay of 200 words on {}.", "Make five quiz questions on {}.", "Give me a lesson plan about {}."),
        ("the Roman empire", "recycling", "fractions", "volcanoes", "the human heart", "Shakespeare"),
    ),
    "machines": (
        ("What is a {}?", "Who invented the {}?", "Draw up a history of the {}.", "How does a {} work?"),
        ("steam engine", "conveyor belt", "lathe", "industrial robot", "hydraulic press", "pump", "gearbox"),
    ),
    "diary": (
        ("Today I {}.", "Yesterday we {} and it was great.", "I really don't like that I {} so often."),
        ("went to the cinema", "met an old friend", "forgot my keys", "slept badly", "cooked for us all"),
    ),
    "news": (
        ("The mayor said on Monday that {}.", "Breaking: {}.", "According to a study, {}."),
        ("the bridge will be closed", "school begins earlier", "bees are coming back", "people drive less"),
    ),
    "feelings": (
        ("I feel {} today.", "My best friend is {}, what can I do?", "Why am I so {}?"),
        ("lonely", "nervous", "angry", "proud", "bored", "happy"),
    ),
    "rewriting": (
        ("Rewrite this more politely: {}", "Correct the spelling: {}", "Make this shorter: {}"),
        ("give me the report now", "i has went to school yesterday", "we are sorry to inform you of a delay"),
    ),
    "sorting": (
        ("Is this review positive or negative? {}", "What is the tone of this: {}", "Extract all names from: {}"),
        ("The film was far too long.", "Anna and Peter went to see Maria.", "Best pizza I have ever had!"),
    ),
    "letters": (
        ("Write an e-mail to {}.", "Draft a letter of complaint to {}.", "Answer this message from {} nicely."),
        ("my landlord", "the school", "my boss", "the city council", "a neighbour", "an airline"),
    ),
    "lists": (
        ("Name ten {}.", "Give me a list of {}.", "Which {} begin with the letter B?"),
        ("animals", "rivers in Europe", "girls' names", "musical instruments", "vegetables", "colours"),
    ),
    "code": (
        ("def {}(x):\n    return x", "SELECT {} FROM users WHERE id = 5;", "function {}() { console.log('hi'); }"),
        ("name", "total", "age", "count", "email", "result"),
    ),
    "data": (
        ('{"name": "{}", "age": 30}', "{}, 12, 14, 19", "id;name;city\n1;{};Oslo", "<p>{}</p>"),
        ("Anna", "Peter", "Carlos", "Mei", "Olga"),
    ),
    "commands": (
        ("How do I {} in Linux?", "Which git command lets me {}?", "Write a shell script to {}."),
        ("list all files", "rename a branch", "find large folders", "undo the last commit", "stop a process"),
    ),
    "single words": (
        ("{}", "{}?", "{}!"),
        ("ok", "yes", "no", "why", "more", "stop", "test", "help", "next", "and then"),
    ),
    "noise": (
        ("{}", "{} {}", "... {}"),
        ("asdf jkl", "qwertz", "lorem ipsum dolor sit amet", "xxxxxx", "12345 67890", "!!! ???", "aaaa bbbb"),
    ),
    "roles": (
        ("Pretend that you are {}.", "You are {}. Greet me.", "Talk to me like {}."),
        ("a pirate", "a king", "an old sailor", "a space captain", "my grandmother", "a detective"),
    ),
    "opinions": (
        ("What do you think about {}?", "Argue for and against {}.", "Is {} a good idea?"),
        ("school uniforms", "working from home", "zoos", "electric cars", "free public transport"),
    ),
    "riddles": (
        ("If {}, how many are left?", "Solve this: {}.", "{}: who is the oldest?"),
        ("I have five apples and eat two", "a train drives 80 km per hour for 3 hours", "Tom is older than Sue"),
    ),
    "where things are": (
        ("Where can I find {}?", "Where is {}?", "Who has seen {}?", "I need {}."),
        ("a good dentist", "the nearest bus stop", "my glasses", "the river Danube", "Mount Fuji", "a hotel"),
    ),
}
EVERYDAY: Kinds = {**ENGLISH, **LANGUAGES}


def texts_of(kinds: Kinds) -> dict[str, list[str]]:
    """The texts of each kind, every one once."""
    return {
        name: list(dict.fromkeys(form.replace("{}", what) for form, what in itertools.product(forms, whats)))
        for name, (forms, whats) in kinds.items()
    }
