"""Videos whose container knows its number of frames only roughly, or not at all."""

import base64
import zlib

import cv2
import numpy as np
import pytest

from d2_ros.errors import D2RosError
from d2_ros.sources import open_source
from d2_ros.sources.containers import is_cut_short

# Eight frames of 64x48 in H.264, brighter from frame to frame, made with PyAV (zlib, base 85).
CLIPS = {
    "raw.h264": (
        r"""c-"""
        r"""muNU|>vlI>2>H@Pz{d12cmI1LGIwBb_T4fZ`eFm?xb8(y1LSJRc<%FerTg<G#fmi0@slKl|4F&;8HUzW>d)f"""
        r"""s{JVQZRq^|9_JPP!;q4Bae2>7k+-U_~)O0_4f16KY*xkfT>9T-+4{_$j`6y&p-"""
        r"""bRQUZ}qfJy)VXm#Yre7nu4x*N<N7dkM^|1n?qQ4Lreq!%K!z!)gS{LlQh^#9&(M}H^%|5$fp|DX7O`nSdZcY"""
        r"""iwoQFOo<V!Zr6^XTOIkNa-y&F%gVR$TvMe-217MBM{@s56}Z_g=ek|4;rl{b+O(0p**a!T"""
    ),
    "offset.mkv": (
        r"""c-"""
        r"""oV4y}x*|Q(GgW({~{L)X3uWxsk)EsUtVBq$s~QJJG2fDAd}>BoW+@&d2})%shg=vr7)_Z&8gmj`H2z9lW|l)"""
        r"""N^H8@S4Vj5T01bx@;itjPLFqAWtadaC-2XCdMcTS0;EjP_l{X{TqmB48aW42O#$>+uw5U*uGY+>l>T-"""
        r"""og91{T6_}A(!w3VluKua!=eLVr69*TbnI_QSIRP22X#{A^+v|xqa9Gg80R!HC~ck7T$-"""
        r"""2C(a6x&9~SQ$;OcIo?-}f`?-=IX+{mc>xVeSt*N27&T^kx5b~PG=Y-(f)eb>kU^CA-iL-"""
        r"""L{}j7|r*{y$_8Ne9xm1YbA+Lz2OPf$<CTk<Jy246GUFm?xb81=jBUEn7sQrxX`&N<Pq?jBrN!iG{9<J6uA89"""
        r"""78<){ao578yHxDkddB=0TeLEJ8vs>^xxmY{=A~)c@z7E#mgHR7#e`O<x@Lacs@!jU{Lt}$9;=C5Z}98fA+2U"""
        r"""pZlMyegB(pTfD51!3boHoZ~D7^JoA6H)#OXGXFpFXvciv=SPcw{`psLKmYuL#fuvmQb6jY9cMYf)TRILyrzE"""
        r"""S=hyk?pMM4^1Sy&ZRg?fz^#7yPkstHzHp5Mt-"""
        r"""^g$Rq)6OxR)hKDLI;NVKjsTRssYP_%vrp$k>M9efuiHA1;#)H%>T@9OaJfvcJz1B|BrPy_Wz0hr+-"""
        r"""`gfA_Zoi`O(V>VTB0IL<m?46#uDpLuk0{l|Sb_U3l~2WzSSu|Ef-"""
        r"""W%0U3#yF5_HOE;G^r6mk{@;7;#{EC}+w`N+O$Q~}8T(u6PF$b9d%|X5sBZ59=9Q04jI%y8asdEzt4n1"""
    ),
    "variable.mkv": (
        r"""c-oV4y}x*|Q(GgW({~{L)X3uWxsk)EsUtVBq$s~QJJG2fDAd}>BoW+@&d2})Og{vDXO|q<-"""
        r"""(qa{_^I#i?%>reqMj?$g4Z-Igz&^d)@1{EXMA_}0C_?ohtq@CG%-"""
        r"""d&xH7@Jfs##3ciuouV+dxTJ^;CA+5VO%O#C;ru5WDScXIG;Xz@ubOAB`dQ!bqy4l69cN<ofw=-"""
        r"""A(qu9Ri44(g=J>y3=XM?0W~G0tgZP}(}Dxil}OqmiMlKP=uiz}4ME-!s@>-"""
        r"""!aU&xsg%%adQjPuMZ6mx;8XA>}oU!+0@7q`mT`y=0zq3hU7&{7@ZDq{eQ?Hk`APA3BGV(U|?o&U|{^he57*)"""
        r"""BLi#3Ip#?xK!LS;f6M&I*IyPFZ%RJUos4is`iX_Ei#uFGgB(LV{rz0pCmR@8fsnDDp#c;y$UAQ<b+p;v^2WX"""
        r"""G!}CUl#XzSsGypY=q;|CMf0S6jpxFFp&YZcW*JDes$1Psc$Y2CATE=mfg5b~n{~vT|FmQ1F|7fRv<maD%_4f"""
        r"""16KmYs#q$&lf%0U#SiXUCo;zs5ckSb}%SqTDARighN)%bUQhN=3ncwr;+HjpAo$5{<RKkfuD2r&N_2C4xW0a"""
        r"""n!jQt|?-"""
        r"""WPvDH2@krGHI3XmKuS~`XB{wp_WysA#sc|&=F!RZANSqZo7?^W=<lTeAM1bY&x!x1e|zz|M($T2)oPBj9_T|"""
        r"""<GdTb6y>{dNpZsn5(LkkjH}?MlDHZ?U{p|oKeNG3a?Nzz2cK2^?WZ2#X%oiV<7-xNG<OBc)qB^n"""
    ),
    "live.mkv": (
        r"""c-"""
        r"""oV4y}x*|Q(GgW({~{L)X3uWxsk)EsUtVBq$s~QJJG2fDAd}>BoW+@&iEe!1bt_hEZX0)SleTw@9ys4)h(i)E"""
        r"""7OA4G%kej#6s3(19=DEFfxEaAp^Yu$UU?7w@7`xzd`Hz#%6ve2j7MkpTx4Xa7Qo&a^cVYEqt@KpIHZWWY+aY"""
        r"""#^R$LPy-"""
        r"""m}G%_e{ozq;Jm(tP5(AFOo?;GIiZldoQ?62<_=G@%KsQkFOh3VIah6i068Xa~u8iZ_WWJzAMgwg2$*Z+qMBI"""
        r"""!W-"""
        r"""mf#Bq1_ovZ2L{G3%tty`Ffy=aoMWDJLf&~>siWWimM5phcRg=pSiHQEfuR9tseEcj3(rT11q=$`|F~~)2jY8"""
        r"""|>(9P5|8xIyweNrPZHt#RG8lneC+9dz!Tj0(|4kY|waovIJlZi|`1#S|pMU<<+s{A$VDaKch7^!GX~$U(Fm>"""
        r"""twJFlr9`T2GJ`RAWO3PFmdK@}yy6#f5bb>zo<yUlQu<~K5&04Wl8oYi3dxX^)N{*U>>k7~fOAafS4Y-"""
        r"""IQaQlRKKYk@IP0rNle+tUAgza9OZ^#5bsjs1V(|LNZr|KI)Xz~VKHj5;8tDvq-"""
        r"""b7(*<S|7RYZT>o+3jlH?u|G`@7f9%fzX<59kkueUWTFr6R1AVCTod5S;yK(<d{x<z+bkhNY;2W+"""
    ),
}
REGULAR = [50 * number for number in range(8)]
TIMES = {
    "raw.h264": [40 * number for number in range(8)],  # it has no clock: 25 frames a second
    "offset.mkv": REGULAR,
    "variable.mkv": [0, 50, 100, 900, 950, 1000, 3000, 3050],
    "live.mkv": REGULAR,
}


@pytest.fixture
def clip(tmp_path):
    def write(name):
        path = tmp_path / name
        path.write_bytes(zlib.decompress(base64.b85decode(CLIPS[name])))
        return path

    return write


def film(path, frames=40):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("name", CLIPS)
def test_an_intact_video_is_read_whole_whatever_its_container_states(tmp_path, clip, name, d2_ros):
    path, out = clip(name), tmp_path / "out.mcap"
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) != 8  # so it is a test
    outcome = d2_ros("convert", path, out)
    assert outcome.code == 0, outcome.err
    assert f"{out}: 8 frames" in outcome.out
    frames = list(open_source(out))
    assert [frame.stamp // 10**6 for frame in frames] == TIMES[name]
    levels = [frame.image.mean() for frame in frames]
    np.testing.assert_allclose(levels, 40 + 20 * np.arange(8), atol=6)
    assert not is_cut_short(path)


def test_raw_motion_jpeg(tmp_path, d2_ros):
    images = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(8)]
    parts = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
    (tmp_path / "raw.mjpeg").write_bytes(b"".join(parts))
    outcome = d2_ros("convert", tmp_path / "raw.mjpeg", tmp_path / "out.mcap")
    assert outcome.code == 0, outcome.err
    assert len(open_source(tmp_path / "out.mcap")) == 8


@pytest.mark.parametrize("count", [0, 7, 1000, 2**31 - 1])
def test_a_wrong_number_of_frames_in_the_head_of_an_avi(tmp_path, count):
    path = film(tmp_path / "clip.avi")
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"avih", 24), (b"strh", 40)):  # dwTotalFrames, dwLength
        place = content.index(mark) + offset
        assert int.from_bytes(content[place : place + 4], "little") == 40
        content[place : place + 4] = count.to_bytes(4, "little")
    path.write_bytes(content)
    source = open_source(path)
    assert 0 <= len(source) <= max(1000, count if count < 10**6 else 0)
    assert sum(1 for _ in source) == 40


@pytest.mark.parametrize("name", ["clip.avi", "clip.mp4", "offset.mkv"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_video_that_is_cut_short_says_so(tmp_path, clip, name, share):
    if name == "clip.mp4":
        writer = cv2.VideoWriter(
            str(tmp_path / name), cv2.VideoWriter.fourcc(*"mp4v"), 20, (64, 48)
        )
        for number in range(40):
            writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
        writer.release()
        path = tmp_path / name
    else:
        path = clip(name) if name in CLIPS else film(tmp_path / name)
    whole = path.read_bytes()
    assert not is_cut_short(path)
    path.write_bytes(whole[: int(share * len(whole))])
    assert is_cut_short(path)
    frames = []
    with pytest.raises(D2RosError, match="is cut short"):
        frames.extend(open_source(path))
    assert len(frames) < 40 or share == 0.97  # of which only the index is gone


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0AVI ", b"\x1a\x45\xdf\xa3",
    b"\x1a\x45\xdf\xa3\x00", b"\0\0\0\x01ftyp", b"\0\0\0\x01ftyp" + b"\xff" * 8])  # fmt: skip
def test_heads_without_a_body_raise_one_sentence(tmp_path, content):
    (tmp_path / "clip.avi").write_bytes(content)
    with pytest.raises(D2RosError, match=r"clip\.avi"):
        list(open_source(tmp_path / "clip.avi"))
