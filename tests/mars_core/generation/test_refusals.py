import pytest

from mars_core.generation.refusals import OPENING, is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with this request.",
        "Sorry, I cannot do that.",
        "Unfortunately, I am unable to reword this text.",
        "I cannot fulfill your request.",
        "I won't provide instructions for that.",
        "I'm not able to paraphrase this.",
        "As an AI, I have to decline.",
        "I'd rather not write about it.",
        "That is not something I'm comfortable with.",
        "I see what you mean. However, rules are rules, and this goes against my guidelines.",
        "It would be wrong for me to create such a text.",
        "Let's change the subject.",
        "Das kann ich leider nicht schreiben.",
        "Je suis navré, je ne peux pas vous répondre.",
        "No puedo ayudarle con esto.",
        "Não posso escrever isso.",
        "Non posso rispondere a questa domanda.",
        "Daar kan ik niet bij helpen.",
        "Det kan jag tyvärr inte hjälpa till med.",
        "Nie mogę pomóc.",
        "Nemohu na to odpovědět.",
        "Я не могу на это ответить.",
        "Buna yardımcı olamam.",
        "抱歉，我不能回答。",
        "お答えできません。",
        "도와드릴 수 없습니다.",
        "لا أستطيع الإجابة.",
        "मैं मदद नहीं कर सकता।",
        "Saya tidak bisa menjawab itu.",
        "Tôi không thể trả lời.",
        "En voi auttaa.",
    ],
)
def test_refusals_are_recognised(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that you are unwell. Rest and drink a lot.",
        "I can help you with that!",
        "You can't do that in January.",
        "Sorry for the delay: the answer is 4.",
        "I can't help but smile at larks.",
        "I would not recommend the red one, for it breaks.",
        "They decline the offer, and he refuses to pay.",
        "This shirt is made to avoid stains.",
        "Das kann nicht schaden, und du hilfst damit allen.",
        "Il ne peut pas pleuvoir demain.",
        "No es difícil: escribe una lista.",
        "Не забудьте написать маме.",
        "这本书不能弯曲。",
    ],
)
def test_other_texts_are_no_refusals(text):
    assert not is_refusal(text)


def test_a_refusal_stands_at_the_beginning():
    story = "He walked on and on, past one house after the other. " * 10
    assert len(story) > OPENING
    assert not is_refusal(f"{story} 'I cannot help you', she said.")
