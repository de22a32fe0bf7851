"""Ordinary texts in other languages than English."""

from __future__ import annotations

LANGUAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "german things": (
        ("Was ist {}?", "Wie funktioniert {}?", "Erzähl mir etwas über {}.", "Schreib ein Gedicht über {}."),
        ("ein Regenbogen", "die Photosynthese", "der Mond", "ein Vulkan", "das Internet", "die Schweiz"),
    ),
    "german life": (
        ("Wie {}?", "Kannst du mir sagen, wie {}?", "Ich möchte wissen, wie {}."),
        ("man Reis kocht", "das Wetter morgen wird", "ich besser schlafe", "viel 17 mal 23 ist", "man Schach spielt"),
    ),
    "german talk": (
        ("{}", "Hallo, {}", "{} Danke!"),
        ("wie geht es dir?", "wer bist du?", "guten Tag.", "was kannst du?", "erzähl mir einen Witz.", "bis morgen."),
    ),
    "french things": (
        ("Qu'est-ce que {} ?", "Raconte-moi une histoire sur {}.", "Comment dessiner {} ?", "Décris {}."),
        ("un volcan", "la tour Eiffel", "un chat", "la photosynthèse", "un château"),
    ),
    "french talk": (
        ("{}", "Bonjour, {}", "{} Merci !"),
        ("comment ça va ?", "qui es-tu ?", "quelle heure est-il ?", "que fait-on ce soir ?", "raconte une blague."),
    ),
    "spanish things": (
        ("¿Qué es {}?", "Escribe un poema sobre {}.", "¿Cómo se prepara {}?", "Háblame de {}."),
        ("la paella", "el sol", "un gato", "la luna", "el gazpacho"),
    ),
    "spanish talk": (
        ("{}", "Hola, {}", "{} ¡Gracias!"),
        ("¿cómo estás?", "¿quién eres?", "¿qué tiempo hace?", "cuéntame un chiste.", "¿cuántos son 12 por 8?"),
    ),
    "chinese things": (
        ("{}是什么？", "给我讲一个关于{}的故事。", "请介绍一下{}。", "写一首关于{}的诗。"),
        ("长城", "月亮", "人工智能", "熊猫", "春节"),
    ),
    "chinese talk": (
        ("{}", "你好，{}", "{}谢谢！", "请问，{}"),
        ("你是谁？", "今天天气怎么样？", "现在几点？", "我很累。", "讲个笑话。", "十二乘八是多少？", "怎么做米饭？"),
    ),
    "japanese": (
        ("{}とは何ですか。", "{}について教えてください。", "{}の話をして。"),
        ("富士山", "月", "猫", "人工知能", "寿司"),
    ),
    "russian": (("Что такое {}?", "Расскажи про {}.", "Как нарисовать {}?"), ("вулкан", "снег", "кот", "море", "чай")),
    "arabic": (("ما هو {}؟", "حدثني عن {}.", "أين {}؟"), ("القمر", "البحر", "القط", "الشاي")),
    "turkish": (("{} nedir?", "Bana {} hakkında bir şey anlat.", "{} nasıl çizilir?"), ("ay", "deniz", "kedi", "çay")),
    "polish": (("Co to jest {}?", "Opowiedz mi o {}.", "Jak narysować {}?"), ("księżyc", "morze", "kot", "wulkan")),
    "hindi": (("{} क्या है?", "मुझे {} के बारे में बताओ।"), ("चाँद", "समुद्र", "बिल्ली", "चाय")),
    "korean": (("{} 무엇입니까?", "{}에 대해 알려 주세요."), ("달은", "바다", "고양이", "한국")),
}  # fmt: skip
