"""Conversations: branches, what the model is told, and files that outlive the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import NotFound
from studio.ui.chats import ChatStore, Turn


def talk(store: ChatStore, *said: str) -> str:
    """A conversation that alternates between the two; returns its id."""
    with store.change(None) as chat:
        for number, text in enumerate(said):
            chat.add(Turn(parent=chat.leaf, role="assistant" if number % 2 else "user", text=text))
    return chat.id


def texts(store: ChatStore, chat_id: str) -> list[str]:
    return [turn.text for turn in store.get(chat_id).path()]


def test_a_conversation_is_found_after_a_restart(tmp_path: Path) -> None:
    chat_id = talk(ChatStore(tmp_path), "hello", "good day", "and now?", "we talk")
    again = ChatStore(tmp_path)
    assert texts(again, chat_id) == ["hello", "good day", "and now?", "we talk"]
    assert again.get(chat_id).title == "hello"
    assert [chat.id for chat in again.newest()] == [chat_id]


def test_another_answer_is_a_branch_and_nothing_is_lost(tmp_path: Path) -> None:
    store = ChatStore(tmp_path)
    chat_id = talk(store, "hello", "good day")
    with store.change(chat_id) as chat:
        first = chat.turn(chat.leaf)
        second = chat.add(Turn(parent=first.parent, role="assistant", text="good evening"))
        assert [turn.text for turn in chat.siblings(second)] == ["good day", "good evening"]
    assert texts(store, chat_id) == ["hello", "good evening"]
    with store.change(chat_id) as chat:
        chat.show(first.id)
    assert texts(store, chat_id) == ["hello", "good day"]


def test_an_edited_turn_keeps_what_followed_the_old_one(tmp_path: Path) -> None:
    store = ChatStore(tmp_path)
    chat_id = talk(store, "one", "first", "two", "second")
    with store.change(chat_id) as chat:
        old = chat.path()[0]
        new = chat.add(Turn(parent="", role="user", text="uno"))
        chat.add(Turn(parent=new.id, role="assistant", text="primo"))
    assert texts(store, chat_id) == ["uno", "primo"]
    with store.change(chat_id) as chat:
        chat.show(old.id)
    assert texts(store, chat_id) == ["one", "first", "two", "second"]


def test_the_model_is_told_the_shown_branch_only(tmp_path: Path) -> None:
    store = ChatStore(tmp_path)
    chat_id = talk(store, "one", "first", "two", "", "three", "third")
    chat = store.get(chat_id)
    told = chat.messages(chat.leaf)
    assert [turn["content"] for turn in told] == ["one", "first", "three", "third"]
    assert [turn["role"] for turn in told] == ["user", "assistant"] * 2


def test_search_looks_into_the_turns(tmp_path: Path) -> None:
    store = ChatStore(tmp_path)
    talk(store, "hello", "the sea is wide")
    sea = talk(store, "weather", "rain over the mountains")
    assert [chat.id for chat in store.newest("RAIN mountains")] == [sea]
    assert store.newest("desert") == []


def test_a_broken_file_takes_only_itself_away(tmp_path: Path) -> None:
    store = ChatStore(tmp_path)
    chat_id = talk(store, "hello", "good day")
    (tmp_path / "broken.json").write_text("{")
    assert [chat.id for chat in store.newest()] == [chat_id]
    with pytest.raises(NotFound):
        store.get("broken")
    assert (tmp_path / "broken.json").read_text() == "{"


@pytest.mark.parametrize("name", ["../secret", "..", "a/b", "", "a.b"])
def test_ids_are_no_paths(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.json").write_text("{}")
    with pytest.raises(NotFound):
        ChatStore(tmp_path / "chats").get(name)


def test_nothing_is_kept_of_a_change_that_failed(tmp_path: Path) -> None:
    store = ChatStore(tmp_path)
    chat_id = talk(store, "hello", "good day")
    with pytest.raises(ZeroDivisionError), store.change(chat_id) as chat:
        chat.add(Turn(parent=chat.leaf, role="user", text="lost"))
        raise ZeroDivisionError
    assert texts(store, chat_id) == ["hello", "good day"]
