import pytest

from pipeline.core.errors import UserError
from pipeline.formats import beside

PEOPLE = [("anna__0.jpg", "train"), ("bob__0.jpg", "train"), ("bob__beach__7.jpg", "test")]


def found(names, images, ending=".png", others=()):
    return beside.find(names, images, ending, "here", "label map", others)


def test_the_split_decides_between_files_of_one_name():
    images = [("1.jpg", "train"), ("a/2.jpg", "test")]
    names = ["x/train/1.png", "x/test/1.png", "x/test/a/2.png", "x/b/2.png"]
    assert found(names, images) == ({"1.jpg": "x/train/1.png", "a/2.jpg": "x/test/a/2.png"}, 2)


@pytest.mark.parametrize(
    "names",
    [
        ["anna__0.png", "bob__0.png", "bob__beach__7.png"],
        ["x/anna/0.png", "x/bob/0.png", "x/bob/beach/7.png"],
        ["anna/0.PNG", "bob__0.png", "7/anna/._0.png", "beach/7.png"],
        ["train/anna/0.png", "train/bob/0.png", "test/bob/beach/7.png"],
        ["anna__0.png", "bob__0.png", "beach__7.png"],
    ],
)
def test_an_image_of_a_person_by_its_id_its_path_or_its_name(names):
    by_image, _ = found(names, PEOPLE)
    shown = [by_image[name].lower().replace("__", "/").removesuffix(".png") for name, _ in PEOPLE]
    assert [one.split("/")[-1] for one in shown] == ["0", "0", "7"]
    assert "anna" in shown[0]
    assert "bob" in shown[1]


def test_a_name_alone_is_only_an_images_that_no_other_has():
    with pytest.raises(UserError, match=r"no label map for 2 of 3 images, the first train/anna__0\.jpg"):
        found(["0.png", "bob__beach__7.png"], PEOPLE)
    assert found(["0.png"], PEOPLE[:1])[0] == {"anna__0.jpg": "0.png"}
    with pytest.raises(UserError, match="no label map for 1 of 1"):  # bob's, who is in the other split
        found(["0.png"], PEOPLE[:1], others=["bob__0.jpg"])
    with pytest.raises(UserError, match="no label map for 1 of 1"):
        found(["bob/0.png"], PEOPLE[:1], others=["bob__9.jpg"])


def test_what_is_wanted_and_what_is_there():
    with pytest.raises(UserError) as error:
        found(["labels/anna_0.png", "labels/zoe.png"], PEOPLE)
    assert "want anna__0.png or anna/0.png, in train/ and test/ or in one folder" in str(error.value)
    assert "nearest to it: labels__anna_0.png" in str(error.value)
    with pytest.raises(UserError, match=r"there is no \.png file at all"):
        found(["anna__0.jpg"], PEOPLE)


def test_two_files_for_an_image_and_two_images_for_a_file():
    with pytest.raises(UserError, match=r"anna__0\.png and anna/0\.png are both named as the image anna__0\.jpg"):
        found(["anna__0.png", "anna/0.png"], PEOPLE[:1])
    with pytest.raises(UserError, match=r"a\.png is of a\.jpg or of a\.webp; images differ in ending only"):
        found(["a.png"], [("a.jpg", "train"), ("a.webp", "train")])
