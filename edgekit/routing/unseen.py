"""Texts for the proof of a router: of kinds that no router is fitted or adjusted on, some near to what adapters do."""

from __future__ import annotations

from edgekit.routing.everyday import Kinds

UNSEEN: Kinds = {
    "sport": (
        (
            "What are the rules of {}?",
            "How long is a game of {}?",
            "Who is the best {} player ever?",
        ),
        (
            "tennis",
            "cricket",
            "ice hockey",
            "handball",
            "volleyball",
            "badminton",
        ),
    ),
    "animals": (
        (
            "How long does a {} live?",
            "What does a {} eat?",
            "Are {}s dangerous for people?",
        ),
        (
            "dolphin",
            "hedgehog",
            "wolf",
            "penguin",
            "parrot",
            "snake",
        ),
    ),
    "music": (
        (
            "Who composed {}?",
            "Write new lyrics to the tune of {}.",
            "On which chords is {} built?",
        ),
        (
            "Yesterday",
            "the Moonlight Sonata",
            "Bohemian Rhapsody",
            "Silent Night",
            "Für Elise",
        ),
    ),
    "weather": (
        (
            "Why does it {} so much in winter?",
            "How do meteorologists know that it will {}?",
            "Did it {} a lot in 1816?",
        ),
        (
            "rain",
            "snow",
            "storm",
            "freeze",
            "hail",
        ),
    ),
    "jobs": (
        (
            "Write a job advertisement for a {}.",
            "What does a {} earn?",
            "Prepare me for an interview as a {}.",
        ),
        (
            "nurse",
            "software developer",
            "teacher",
            "pilot",
            "machine operator",
            "quality inspector",
            "accountant",
        ),
    ),
    "tech": (
        (
            "How do I reset my {}?",
            "My {} is slow, what now?",
            "Is a {} worth its price?",
        ),
        (
            "phone",
            "router",
            "smart watch",
            "printer",
            "tablet",
            "television",
        ),
    ),
    "body": (
        (
            "How does the {} work?",
            "Which muscles are in the {}?",
            "Draw the {} in words.",
        ),
        (
            "liver",
            "knee",
            "human eye",
            "inner ear",
            "stomach",
        ),
    ),
    "clauses": (
        (
            "Write a tenancy agreement for {}.",
            "What should stand in a contract about {}?",
            "Is a handshake a contract when I sell {}?",
        ),
        (
            "a flat",
            "a horse",
            "my old piano",
            "a garage",
            "a boat",
        ),
    ),
    "companies": (
        (
            "When was {} founded?",
            "Who is the boss of {}?",
            "What does {} produce?",
        ),
        (
            "Siemens",
            "Toyota",
            "Nestlé",
            "IBM",
            "Nokia",
            "Boeing",
        ),
    ),
    "italian": (
        (
            "Che cos'è {}?",
            "Raccontami una barzelletta su {}.",
            "Come si cucina {}?",
        ),
        (
            "la carbonara",
            "il mare",
            "un gatto",
            "la pizza",
            "il risotto",
        ),
    ),
    "portuguese": (
        (
            "O que é {}?",
            "Conte uma história sobre {}.",
            "Por que {} é importante?",
        ),
        (
            "o sol",
            "a água",
            "um vulcão",
            "a amizade",
            "o futebol",
        ),
    ),
    "stories": (
        (
            "Once upon a time there was {} who lived in a small village.",
            "Continue the story: {} opened the door and saw",
            "The next morning {} woke up and everything was different.",
        ),
        (
            "a baker",
            "an old woman",
            "a young fox",
            "the inspector",
            "a robot",
        ),
    ),
    "paragraphs": (
        (
            "{} Summarize this.",
            "{} Which title fits?",
            "Read this and ask me a question about it: {}",
        ),
        (
            "The potato came to Europe in the sixteenth century. At first people grew it for its flowers alone.",
            "In 1969 two people walked on the moon for the first time. Half a billion watched them.",
            "Bees dance to tell each other where flowers are. The angle shows the direction.",
            "The old library closed in March. Since then, volunteers have collected books in a garage.",
        ),
    ),
    "html": (
        (
            "<div class='{}'><h1>Title</h1></div>",
            "import {} as x\nx.run()",
            "What is wrong with `for i in {}`?",
            "Convert {} to YAML.",
        ),
        (
            "main",
            "numpy",
            "header",
            "[1, 2, 3]",
            "items",
        ),
    ),
    "maths": (
        (
            "Solve {} for x.",
            "What is the derivative of {}?",
            "Plot {} as ASCII art.",
        ),
        (
            "x^2 = 9",
            "3x + 4 = 19",
            "sin(x)",
            "2x^3 - x",
            "e^x",
        ),
    ),
    "greetings": (
        (
            "{}",
            "{}, my name is Tom.",
            "{} How was your day?",
        ),
        (
            "Hi",
            "Good morning!",
            "Hey there",
            "Hello",
            "Nice to meet you.",
            "Long time no see!",
        ),
    ),
    "politics": (
        (
            "Who was president of {} in 1990?",
            "How does {} elect its parliament?",
            "When did {} join the United Nations?",
        ),
        (
            "France",
            "Brazil",
            "India",
            "Poland",
            "Mexico",
        ),
    ),
    "dates": (
        (
            "How many days are there until {}?",
            "Which weekday is {} this year?",
            "Why do people celebrate {}?",
        ),
        (
            "Christmas",
            "Easter",
            "New Year",
            "Halloween",
            "my birthday on 5 May",
        ),
    ),
    "workshop": (
        (
            "What is the difference between a {} and a wrench?",
            "When was the {} invented?",
            "How much does a good {} cost?",
        ),
        (
            "torque wrench",
            "caliper",
            "screwdriver",
            "drill",
            "grinder",
            "label printer",
        ),
    ),
    "advice": (
        (
            "How can I {}?",
            "I want to {}, any tips?",
            "Is it too late to {}?",
        ),
        (
            "sleep better",
            "stop smoking",
            "make new friends",
            "learn Spanish",
            "run a marathon",
            "read more books",
        ),
    ),
}
